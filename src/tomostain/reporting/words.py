"""What the numbers of an evaluation mean, in words for readers who do not know neural networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tomostain.learning.ranges import out_of_range as out_of_range_words
from tomostain.pairs.pair import Pair
from tomostain.reporting.errors import JUST_NOTICEABLE, ColourClass
from tomostain.scoring.baselines import COLOUR_TABLE
from tomostain.scoring.scores import FEW_SPECIMENS, PERFECT, STAINER

Summary = Mapping[str, Any]

NAMES = {"ssim": "SSIM", "psnr": "PSNR", "lpips": "LPIPS"}
UNITS = {"psnr": "dB"}
MEANINGS = {
    "ssim": "Structural similarity: are the same structures in the same places? 1 is identical, 0 unrelated.",
    "psnr": "Peak signal-to-noise ratio, in dB: how close are the colours, pixel by pixel? 3 dB more is half the "
    "squared error.",
    "lpips": "Learned perceptual distance (LPIPS v0.1): how different do the pictures look? 0 is identical.",
}
PHANTOM = "Simulated (phantom)"
_STYLES = {STAINER: "stainer", COLOUR_TABLE: "table", "mean colour": "mean", PERFECT: "perfect"}


def title(stain: str, summary: Summary) -> str:
    """What the report is of."""
    count, simulated = summary["specimens"], len(summary["simulated"])
    which = "unseen " if summary["trained_on_too"] == [] else ""
    kind = "simulated " if simulated == summary["pairs"] else ""
    judged = f"Virtual {stain}, judged on {count} {which}{kind}specimen{'s' * (count != 1)}"
    if simulated == summary["pairs"]:
        return f"{judged} (phantom)"
    return judged + (f", {simulated} of {summary['pairs']} sections simulated (phantom)" if simulated else "")


def introduction(
    stain: str, um_per_px: float, trained_on: Sequence[str] | None, summary: Summary, *, phantoms: str | None = None
) -> list[str]:
    """What was trained on what, and what it is judged by; ``phantoms`` are the training specimens of the phantom."""
    learnt = "It learnt from paired sections"
    if trained_on:
        learnt = f"It learnt from {len(trained_on)} specimen{'s' * (len(trained_on) != 1)} ({', '.join(trained_on)})"
    pairs = summary["pairs"]
    made = f" Of these, {phantoms} are simulated (phantom)." if phantoms else ""
    return [
        f"A network was trained to predict the {stain} stain of a section from X-ray micro-CT. "
        f"{learnt} at {um_per_px:g} µm per pixel.{made} It is judged here on {pairs} "
        f"{truth(summary)} section{'s' * (pairs != 1)}. {unseen(summary)}"
        + (f" {_origin(summary)}" if summary["simulated"] else "")
    ]


def truth(summary: Summary) -> str:
    """What the stain is called that the virtual one is compared with: real, simulated, or true where both occur."""
    simulated = len(summary["simulated"])
    return "real" if not simulated else "simulated" if simulated == summary["pairs"] else "true"


def captions(simulated: Sequence[str]) -> dict[str, str]:
    """Captions of a pair's pictures, by what of the pair was simulated."""
    return {
        "virtual": "Virtual stain",
        "table": "Colour table, for comparison",
        "error": "Difference of the virtual stain",
        "table_error": "Difference of the colour table",
        "ct": f"{PHANTOM} CT" if "CT" in simulated else "CT",
        "real": f"{PHANTOM} stain" if "stain" in simulated else "Real stain",
        "hero_ct": ("Simulated CT (phantom)" if "CT" in simulated else "CT") + ": input of the network",
        "hero_real": "Simulated stain (phantom): computed, not seen in a microscope"
        if "stain" in simulated
        else "Real stain: seen in the microscope",
    }


def registration_quality(pair: Pair) -> str:
    """How well the slide of a pair was registered to its CT, as far as its notes say."""
    expected, probability = pair.notes.get("expected_tre_um"), pair.notes.get("probability")
    if expected is None:
        made = "true placement of the phantom" if "stain" in pair.simulated else "registration not judged"
        return made if pair.plane is not None else "images that were already aligned"
    words = f"registered with an expected error of {expected:.1f} µm ({expected / pair.grid.spacing_um[0]:.1f} px)"
    words += "" if probability is None else f", probability {probability:.0%}"
    check = pair.notes.get("check")
    return words + (f". {check}" if isinstance(check, str) else "" if not check else ". Check by eye")


def unseen(summary: Summary) -> str:
    """Whether the scored specimens were kept from the training."""
    known = summary["trained_on_too"]
    if known is None:
        return "Whether it was trained on these specimens is not recorded."
    if known:
        return f"It was trained on {_listed(known)}, so these scores are too good."
    return "None of these specimens was used for training."


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
    """``good``: shown to be better in every metric; ``bad``: worse in every one; ``open``: nothing is shown; ``mixed``.

    Two specimens are never ``good``, nor are specimens that were trained on.
    """
    known = list(summary["beats_colour_table"].values())
    if known and all(known):
        return "good" if summary["specimens"] >= FEW_SPECIMENS and summary["trained_on_too"] == [] else "mixed"
    if known and all(value is False for value in known):
        return "bad"
    return "open" if all(value is None for value in known) else "mixed"


def explanation(summary: Summary) -> str:
    """What the verdict compares, and what it is based on."""
    count, pairs = summary["specimens"], summary["pairs"]
    text = "The colour table gives each CT grey value the one colour that fits best. It does not use shape. "
    if count == 1:
        return text + f"The {pairs} section{'s' * (pairs != 1)} shown here come{'s' * (pairs == 1)} from one specimen."
    return (
        text + "A difference counts only where its 95 % interval over specimens excludes zero "
        f"(Student's t of paired differences, {count} specimens, {pairs} sections)."
    )


def tiles(summary: Summary, higher: Mapping[str, bool]) -> list[dict[str, Any]]:
    """The stainer's means, each with its gain over the colour table and whether the gain is more than chance."""
    gains = summary["gains"].get(COLOUR_TABLE, {})
    made = []
    for metric in summary["metrics"]:
        gain = gains.get(metric)
        known = summary["beats_colour_table"].get(metric)
        words = ""
        if gain:
            table = number(metric, summary["methods"][COLOUR_TABLE][metric]["mean"])
            judged = {True: "better", False: "worse", None: "the difference may be chance"}[known]
            if summary["specimens"] == 1:
                judged = "one specimen shows no difference"
            if summary["without_contrast"]:
                judged = "not judged"
            words = f"colour table {table}: {judged}"
        name = f"{NAMES.get(metric, metric)}, {'higher' if higher.get(metric, True) else 'lower'} is better"
        value = number(metric, summary["methods"][STAINER][metric]["mean"])
        state = {True: "good", False: "bad", None: "open"}[known]
        made.append({"name": name, "value": value, "unit": UNITS.get(metric, ""), "gain": words, "state": state})
    return made


def score_rows(summary: Summary) -> list[dict[str, Any]]:
    """A row for each method: means with intervals."""
    return [
        {
            "method": method,
            "style": _STYLES.get(method, "mean"),
            "cells": [_cell(metric, spread[metric]) for metric in summary["metrics"]],
        }
        for method, spread in summary["methods"].items()
    ]


def gain_rows(summary: Summary) -> list[dict[str, Any]]:
    """A row for the colour table: how much better the stainer is on the same specimens."""
    gains = summary["gains"].get(COLOUR_TABLE)
    if not gains:
        return []
    cells = []
    for metric in summary["metrics"]:
        gain = gains[metric]
        cell = _cell(metric, gain)
        sign = "+" if gain["mean"] is None or gain["mean"] > 0 else ""
        cells.append({**cell, "value": sign + cell["value"], "won": gain["pairs_won"]})
    return [{"label": "gain over the colour table (positive is better)", "cells": cells}]


def skill_row(skill: Mapping[str, float | None], metrics: Sequence[str]) -> list[str]:
    """The skill in each metric, empty where it is not known."""
    return [_or_dash(skill[m], ".2f") for m in metrics] if skill else []


def fitted_rows(summary: Summary) -> list[dict[str, Any]]:
    """A row for each method: the colour difference as it is, and the means after the dye of each section was fitted."""
    fitted, delta_e = summary["after_dye_fit"].get("methods", {}), summary["delta_e"]
    return [
        {
            "method": method,
            "style": _STYLES.get(method, "mean"),
            "delta_e": _or_dash(delta_e[method]["mean"], ".1f") if method in delta_e else "-",
            "cells": [number(metric, spread[metric]["mean"]) for metric in summary["metrics"]],
        }
        for method, spread in fitted.items()
    ]


def tissue_rows(summary: Summary) -> list[dict[str, str]]:
    """A row for each tissue that is there: its share, and colour error and overlap of stainer, table and ceiling."""
    tissues = summary["tissues"]
    if not {STAINER, COLOUR_TABLE, PERFECT} <= set(tissues):
        return []
    rows = []
    for name, ours in tissues[STAINER].items():
        if ours["delta_e"] is None:
            continue
        row = {"name": name, "share": f"{ours['share']:.1%}"}
        for key, method in (("ours", STAINER), ("table", COLOUR_TABLE), ("perfect", PERFECT)):
            row[f"{key}_error"] = _or_dash(tissues[method][name]["delta_e"], ".1f")
            row[f"{key}_overlap"] = _or_dash(tissues[method][name]["dice"], ".2f")
        rows.append(row)
    return rows


def warnings(
    summary: Summary, classes: Sequence[ColourClass], *, out_of_range: float, volume: Mapping[str, Any] | None
) -> list[str]:
    """Warnings for the reader, the most serious first."""
    found = [f"Pair {name}: {flaw}. Its scores mean nothing." for name, flaw in summary["without_contrast"].items()]
    state = state_of(summary)
    if state == "bad":
        found.append("The stainer is worse than the colour table. Do not use it.")
    elif state == "open":
        found.append("It is not shown that the stainer is better than the colour table. Do not rely on it.")
    if summary["simulated"]:
        found.append(_origin(summary))
    known = summary["trained_on_too"]
    if known is None:
        found.append("The stainer does not record its training specimens. The scored specimens may be among them.")
    elif known:
        found.append(f"{_listed(known)} was used for training too: scores that include it are too good.")
    if summary["specimens"] < FEW_SPECIMENS:
        count = "One specimen was" if summary["specimens"] == 1 else f"{summary['specimens']} specimens were"
        found.append(f"Only {count.lower()} held out. Other specimens may do worse.")
    far = out_of_range_words(summary["out_of_range"], summary["learnt_range"], limit=out_of_range)
    if far:
        found.append(f"{far}.")
    if volume and volume.get("outside"):
        found.append(str(volume["outside"]))
    overall = sum(c.share * c.errors[STAINER] for c in classes) / max(sum(c.share for c in classes), 1e-9)
    off = [c for c in classes if c.errors[STAINER] > max(1.5 * overall, 2 * JUST_NOTICEABLE)]
    kind = truth(summary)
    if off:
        named = _listed([f"{c.name} ({c.share:.0%} of the pixels, ΔE {c.errors[STAINER]:.1f})" for c in off])
        found.append(f"The error is largest where the {kind} stain is {named}. Over all pixels it is ΔE {overall:.1f}.")
    behind = [c for c in classes if c.errors[STAINER] > 1.05 * c.errors.get(COLOUR_TABLE, float("inf"))]
    if behind:
        named = _listed([f"{c.name} (ΔE {c.errors[COLOUR_TABLE]:.1f} against {c.errors[STAINER]:.1f})" for c in behind])
        found.append(
            f"The error of the colour table is smaller than that of the network where the {kind} stain is {named}."
        )
    return found


def _origin(summary: Summary) -> str:
    simulated, pairs = len(summary["simulated"]), summary["pairs"]
    if simulated == pairs:
        return "All sections are simulated by tomostain's phantom. These scores say nothing about real specimens."
    return f"{simulated} of the {pairs} sections are simulated by tomostain's phantom: {_listed(summary['simulated'])}."


def _or_dash(value: float | None, digits: str) -> str:
    return "-" if value is None else f"{value:{digits}}"


def _cell(metric: str, spread: Mapping[str, Any]) -> dict[str, str]:
    low, high = spread["low"], spread["high"]
    between = "" if low is None else f"{number(metric, low)} to {number(metric, high)}"
    return {"value": number(metric, spread["mean"]), "interval": between}


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
