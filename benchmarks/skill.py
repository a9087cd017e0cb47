"""How much of the way from the colour table to the perfect section a fine-tuned stainer goes, on phantoms not seen.

    tomostain phantom cohort/ --specimens 8 --slides 4 --size 96 320 320 --seed 2101
    tomostain pair cohort/ pairs/
    python benchmarks/skill.py pairs/ OUT S05 S06 S07 [-- further flags of tomostain train]

The specimens named are held out; the stainer that is shipped is fine-tuned on the others.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from _results import Figure, save

METRICS = ("ssim", "psnr", "lpips")
START = "phantom-toluidine-blue"


def tomostain(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "tomostain", *words], check=True)


def figures_of(name: str, summary: dict[str, Any]) -> list[Figure]:
    """Skill, scores, and what the tissues look like."""

    def row(values: dict[str, Any], form: str) -> str:
        return " / ".join(
            format(values[m]["mean"] if isinstance(values[m], dict) else values[m], form) for m in METRICS
        )

    found = [Figure(f"{name}: skill in SSIM / PSNR / LPIPS", row(summary["skill"], ".2f"))]
    found += [Figure(f"{name}: {method}", row(scores, ".3f")) for method, scores in summary["methods"].items()]
    fit = summary.get("after_dye_fit") or {}
    if fit.get("skill"):
        found.append(Figure(f"{name}: skill after a dye fit of each slide", row(fit["skill"], ".2f")))
    for tissue, score in summary["tissues"].get("stainer", {}).items():
        table = summary["tissues"]["colour table"][tissue]
        found.append(
            Figure(
                f"{name}: {tissue}, CIEDE2000 and Dice of the tissue read back",
                _pair(score),
                peer=f"colour table: {_pair(table)}",
            )
        )
    return found


def _pair(score: dict[str, float | None]) -> str:
    return ", ".join("-" if score[key] is None else format(score[key], ".2f") for key in ("delta_e", "dice"))


def main(words: list[str]) -> None:
    """Fine-tune the stainer that is shipped and score it."""
    flags = words[words.index("--") + 1 :] if "--" in words else []
    pairs, out, *held = words[: words.index("--")] if "--" in words else words
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    held_out = [word for name in held for word in ("--hold-out", name)]
    begun = time.monotonic()
    tomostain("train", pairs, str(folder / "stainer"), "--from", START, *held_out, *flags)
    minutes = (time.monotonic() - begun) / 60
    tomostain("evaluate", str(folder / "stainer"), pairs, str(folder / "evaluation"))
    summary = json.loads((folder / "evaluation" / "summary.json").read_text())
    figures = figures_of(f"fine-tuned in {minutes:.0f} min", summary)
    save("skill", figures, note=f"held out: {', '.join(held)}; made from {START}")


if __name__ == "__main__":
    main(sys.argv[1:])
