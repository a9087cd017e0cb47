"""What the numbers of an evaluation mean, in words that need no knowledge of networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tomostain.reporting.errors import JUST_NOTICEABLE, ColourClass

Summary = Mapping[str, Any]

NAMES = {"ssim": "SSIM", "psnr": "PSNR", "lpips": "LPIPS"}
UNITS = {"psnr": "dB"}
MEANINGS = {
    "ssim": "Structural similarity: are the same structures in the same places? 1 is identical, 0 unrelated.",
    "psnr": "Peak signal-to-noise ratio, in dB: how close are the colours, pixel by pixel? 3 dB more is half the "
    "squared error.",
    "lpips": "Learned perceptual distance (LPIPS v0.1): how different do the pictures look? 0 is identical.",
}
_STYLES = {"stainer": "stainer", "colour table": "table", "mean colour": "mean"}


def title(stain: str, summary: Summary) -> str:
    """What the report is of."""
    count = summary["specimens"]
    which = "unseen " if summary["trained_on_too"] == [] else ""
    return f"Virtual {stain}, judged on {count} {which}specimen{'s' * (count != 1)}"


def introduction(stain: str, um_per_px: float, trained_on: Sequence[str] | None, summary: Summary) -> list[str]:
    """What was trained on what, and what it is judged by."""
    learnt = "It learnt from paired sections"
    if trained_on:
        learnt = f"It learnt from {len(trained_on)} specimen{'s' * (len(trained_on) != 1)} ({', '.join(trained_on)})"
    return [
        f"A network was trained to paint X-ray micro-CT as if the specimen had been cut, stained with {stain} and put "
        f"under a microscope. {learnt} at {um_per_px:g} µm per pixel, and is judged here on {summary['pairs']} real "
        f"section{'s' * (summary['pairs'] != 1)}. {unseen(summary)}"
    ]


def unseen(summary: Summary) -> str:
    """Whether the scored specimens were kept from the training."""
    known = summary["trained_on_too"]
    if known is None:
        return "Whether it has seen these specimens in training is not recorded."
    if known:
        return f"It has seen {_listed(known)} in training, which makes these scores too good."
    return "None of these specimens was shown to the network in training."


def number(metric: str, value: float | None) -> str:
    """A score with the digits that matter; an infinite one was stored as None."""
    return "∞" if value is None else f"{value:.2f}" if metric == "psnr" else f"{value:.3f}"


def metric_facts(metrics: Sequence[str], higher: Mapping[str, bool]) -> list[dict[str, Any]]:
    """Name, direction and meaning of each metric."""
    return [
        {
            "key": m,
            "name": NAMES.get(m, m) + (f" ({UNITS[m]})" if m in UNITS else ""),
            "higher": higher.get(m, True),
            "direction": "higher" if higher.get(m, True) else "lower",
            "meaning": MEANINGS.get(m, "A metric of your own."),
        }
        for m in metrics
    ]


def state_of(summary: Summary) -> str:
    """``good`` where the stainer beats the table in every metric, ``bad`` where in none, else ``mixed``."""
    beaten = list(summary["beats_colour_table"].values())
    return "good" if beaten and all(beaten) else "mixed" if any(beaten) else "bad"


def explanation(summary: Summary) -> str:
    """Why the verdict is the question to ask, and how sure the answer is."""
    text = (
        "The colour table is the best picture that the CT's grey values alone can give. A network that does not "
        "beat the table has learnt nothing. "
    )
    gains = summary["gains"].get("colour table", {})
    won = [m for m, g in gains.items() if g["mean"] is None or g["mean"] > 0]
    clear = [m for m in won if gains[m]["low"] is not None and gains[m]["low"] > 0]
    count = summary["specimens"]
    if won and len(clear) == len(won):
        text += f"The gain is clear of chance by its 95 % interval in {_listed([NAMES.get(m, m) for m in clear])}"
    elif won:
        unsure = [NAMES.get(m, m) for m in won if m not in clear]
        text += f"The gain in {_listed(unsure)} may be chance: its 95 % interval includes zero or cannot be given"
    else:
        text += "Train longer, on more or better registered pairs, before using it for anything"
    return text + f" ({count} held-out specimen{'s' * (count != 1)}, {summary['pairs']} sections)."


def tiles(summary: Summary, higher: Mapping[str, bool]) -> list[dict[str, Any]]:
    """The stainer's means, each with its gain over the colour table."""
    gains = summary["gains"].get("colour table", {})
    made = []
    for metric in summary["metrics"]:
        gain = gains.get(metric)
        table = summary["methods"].get("colour table", {}).get(metric, {}).get("mean")
        better = bool(gain) and (gain["mean"] is None or gain["mean"] > 0)
        told = ""
        if gain:
            word = ("higher" if higher.get(metric, True) else "lower") if better else "not better"
            told = f"{word} than the colour table ({number(metric, table)})" if table is not None else word
        name = f"{NAMES.get(metric, metric)}, {'higher' if higher.get(metric, True) else 'lower'} is better"
        value = number(metric, summary["methods"]["stainer"][metric]["mean"])
        made.append({"name": name, "value": value, "unit": UNITS.get(metric, ""), "gain": told, "better": better})
    return made


def score_rows(summary: Summary, higher: Mapping[str, bool]) -> list[dict[str, Any]]:
    """A row for each method: means with intervals, the best of each metric marked."""
    best = {}
    for metric in summary["metrics"]:
        sign = 1 if higher.get(metric, True) else -1
        means = {m: spread[metric]["mean"] for m, spread in summary["methods"].items()}
        best[metric] = max(means, key=lambda m: float("inf") if means[m] is None else sign * means[m])
    return [
        {
            "method": method,
            "style": _STYLES.get(method, "mean"),
            "cells": [
                {**_cell(metric, spread[metric]), "best": best[metric] == method} for metric in summary["metrics"]
            ],
        }
        for method, spread in summary["methods"].items()
    ]


def gain_rows(summary: Summary) -> list[dict[str, Any]]:
    """A row for the colour table: how much better the stainer is on the same sections."""
    gains = summary["gains"].get("colour table")
    if not gains:
        return []
    cells = []
    for metric in summary["metrics"]:
        gain = gains[metric]
        cell = _cell(metric, gain)
        sign = "+" if gain["mean"] is None or gain["mean"] > 0 else ""
        cells.append({**cell, "value": sign + cell["value"], "won": gain["pairs_won"]})
    return [{"label": "gain over the colour table (positive is better)", "cells": cells}]


def warnings(
    summary: Summary, classes: Sequence[ColourClass], *, out_of_range: float, volume: Mapping[str, Any] | None
) -> list[str]:
    """What a reader has to be warned of, the gravest first."""
    found = []
    if state_of(summary) == "bad":
        found.append("The stainer is no better than a table of grey values. Do not use it.")
    known = summary["trained_on_too"]
    if known is None:
        found.append("The stainer does not say what it was trained on; the scored specimens may be among it.")
    elif known:
        found.append(f"{_listed(known)} was trained on too: scores that include it are too good to be believed.")
    if summary["specimens"] < 3:
        count = "One specimen was" if summary["specimens"] == 1 else f"{summary['specimens']} specimens were"
        found.append(f"Only {count.lower()} held out: the intervals are rough, and other specimens may do worse.")
    far = {name: share for name, share in summary.get("out_of_range", {}).items() if share > out_of_range}
    if far:
        shares = _listed([f"{share:.1%} of {name}" for name, share in sorted(far.items(), key=lambda item: -item[1])])
        found.append(f"CT values that were never met in training make up {shares}; the colours there are a guess.")
    if volume and volume.get("outside"):
        found.append(str(volume["outside"]))
    overall = sum(c.share * c.errors["stainer"] for c in classes) / max(sum(c.share for c in classes), 1e-9)
    off = [c for c in classes if c.errors["stainer"] > max(1.5 * overall, 2 * JUST_NOTICEABLE)]
    if off:
        told = _listed([f"{c.name} ({c.share:.0%} of the pixels, ΔE {c.errors['stainer']:.1f})" for c in off])
        found.append(f"Furthest off, against ΔE {overall:.1f} overall, it is where the real stain is {told}.")
    behind = [c for c in classes if c.errors["stainer"] > 1.05 * c.errors.get("colour table", float("inf"))]
    if behind:
        told = _listed(
            [f"{c.name} (ΔE {c.errors['colour table']:.1f} against {c.errors['stainer']:.1f})" for c in behind]
        )
        found.append(f"The colour table comes closer than the network where the real stain is {told}.")
    return found


def _cell(metric: str, spread: Mapping[str, Any]) -> dict[str, str]:
    low, high = spread["low"], spread["high"]
    between = "" if low is None else f"{number(metric, low)} to {number(metric, high)}"
    return {"value": number(metric, spread["mean"]), "interval": between}


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
