"""What a training looks like while it runs: curves.csv and sample pictures."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from tomostain.learning.patches import Patch
from tomostain.learning.ranges import RGBRange
from tomostain.runs import write_text_atomically

FILE = "curves.csv"


class Curves:
    """curves.csv, one line each few steps; blank where a value was not taken.

    Opening it for ``step`` drops the lines of later steps, which a resumed training writes again.
    """

    def __init__(self, path: Path, columns: Sequence[str], *, step: int = 0) -> None:
        self.path, self.columns = path, ("step", *columns)
        kept: list[dict[str, str]] = []
        if step and path.is_file():
            with path.open(newline="", encoding="utf-8") as file:
                # a line cut short by a kill has no number in its first column, or belongs to a later step
                kept = [
                    row for row in csv.DictReader(file) if (row["step"] or "").isdigit() and int(row["step"]) <= step
                ]
        text = io.StringIO()
        table = csv.DictWriter(text, self.columns, restval="", extrasaction="ignore", lineterminator="\n")
        table.writeheader()
        table.writerows(kept)
        write_text_atomically(path, text.getvalue())

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Append a line."""
        row = [str(step), *(f"{values[name]:.6g}" if name in values else "" for name in self.columns[1:])]
        with self.path.open("a", newline="", encoding="utf-8") as file:
            file.write(",".join(row) + "\n")


class Tally:
    """The losses of the steps since the last line of the curves."""

    def __init__(self, names: Sequence[str], steps: Sequence[Mapping[str, float]] = ()) -> None:
        self.names = list(names)
        self.steps: list[Mapping[str, float | Tensor]] = list(steps)

    def add(self, terms: Mapping[str, Tensor]) -> None:
        """One step's losses; a loss that was not due is left out."""
        self.steps.append({name: term.detach() for name, term in terms.items()})

    def means(self, done: int, out: Path) -> dict[str, float]:
        """Mean of each loss over the steps up to ``done``.

        Raises
        ------
        ValueError
            One is not finite.
        """
        plain = self.plain()["steps"]
        for step, terms in enumerate(plain, start=done - len(plain) + 1):
            for name, value in terms.items():
                if not math.isfinite(value):
                    raise ValueError(
                        f"loss {name} became {value} in step {step}; the last good checkpoint, if any, stays in "
                        f"{out / 'checkpoint'}. Train again with a lower --lr, or with less weight on this loss"
                    )
        taken = {name: [terms[name] for terms in plain if name in terms] for name in self.names}
        return {name: sum(values) / len(values) for name, values in taken.items() if values}

    def clear(self) -> None:
        """Begin again."""
        self.steps = []

    def plain(self) -> dict[str, Any]:
        """Plain numbers, for ``Tally(**...)``."""
        return {"names": self.names, "steps": [{n: float(v) for n, v in step.items()} for step in self.steps]}


def save_samples(path: Path, patches: Patch, stained: Tensor) -> None:
    """Write a picture: a row for each patch, of CT, virtual stain and true stain (masked pixels grey).

    ``stained`` is (b, 3, y, x) in [-1, 1]; CT is shown with its range as black to white.
    """
    ct = patches.central_ct.clamp(-1.0, 1.0).expand(-1, 3, -1, -1)
    rows = torch.cat([ct, stained, patches.stain], dim=3)
    picture = torch.cat(list(rows), dim=1).permute(1, 2, 0).numpy()
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    Image.fromarray(RGBRange.from_unit(picture)).save(part, format="PNG")
    part.replace(path)


def in_short(values: Mapping[str, float], losses: Sequence[str]) -> str:
    """The loss that matters most and the score on held-out specimens, for the progress bar."""
    shown = next((name for name in ("paired", "cycle", *losses) if name in values), None)
    words = [] if shown is None else [f"{shown} {values[shown]:.3f}"]
    if "val_ssim" in values:
        words.append(f"held-out SSIM {values['val_ssim']:.3f}")
    return ", ".join(words)
