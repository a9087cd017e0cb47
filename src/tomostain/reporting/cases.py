"""Held-out pairs with their predicted stains, and the pictures of each that a report shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from tomostain.images.anchors import GreyMap
from tomostain.images.geometry import Grid
from tomostain.pairs.pair import Pair, load_pair
from tomostain.reporting.drawing import plane_in_volume
from tomostain.reporting.errors import Case, worst_regions
from tomostain.reporting.pictures import error_map, grey, hatched, picture
from tomostain.reporting.words import captions, registration_quality
from tomostain.runs import progress
from tomostain.scoring.baselines import COLOUR_TABLE
from tomostain.scoring.colours import colour_difference
from tomostain.scoring.evaluation import prediction_path
from tomostain.scoring.scores import STAINER

Window = tuple[float, float]
"""CT values shown black and white."""


def load_cases(
    names: Sequence[str],
    files: Sequence[Path],
    evaluation: Path,
    methods: Sequence[str],
    grey_maps: Mapping[str, Mapping[str, float]] = MappingProxyType({}),
) -> list[Case]:
    """The named pairs with their predicted stains, in the order of the names.

    Raises
    ------
    ValueError
        A pair is not there, or is not the one that the evaluation was made of.
    """
    loaded = {}
    for file in progress(files, desc="report", unit="pair"):
        pair = load_pair(file)
        if pair.name not in names:
            continue
        predicted = {}
        for method in methods:
            with Image.open(prediction_path(evaluation, pair.name, method)) as image:
                predicted[method] = np.asarray(image.convert("RGB"))
            if predicted[method].shape != pair.stain.shape:
                raise ValueError(f"{file} is not the pair {pair.name} of {evaluation}: its size differs")
        y, x = pair.grid.spacing_um
        loaded[pair.name] = Case(
            pair.name,
            pair.specimen,
            GreyMap(**grey_maps.get(pair.specimen, {}))(pair.central_ct),
            pair.stain,
            predicted,
            {method: colour_difference(rgb, pair.stain) for method, rgb in predicted.items()},
            pair.weight > 0,
            (y, x),
            pair.inside,
            pair.simulated,
            registration_quality(pair),
            _drawing(pair),
        )
    missing = [name for name in names if name not in loaded]
    if missing:
        raise ValueError(
            f"the pairs {', '.join(missing)}, which {evaluation} was made of, are missing; pass the same folder"
        )
    return [loaded[name] for name in names]


def case_pictures(case: Case, window: Window, top: float, *, lossless: bool) -> dict[str, Any]:
    """The six pictures of a case with their captions; hatched where the CT volume ends, or the stain is not compared.

    ``top`` is the colour difference shown brightest.
    """
    shown = {
        **_triple(case, window, (slice(None), slice(None))),
        "table": hatched(case.predicted[COLOUR_TABLE], case.inside, opaque=True),
        "error": error_map(case.errors[STAINER], case.mask, top=top),
        "table_error": error_map(case.errors[COLOUR_TABLE], case.mask, top=top),
    }
    called = captions(case.simulated)
    pictures: dict[str, Any] = {
        name: picture(image, f"{called[name]} of {case.name}", spacing_um=case.spacing_um, lossless=lossless)
        for name, image in shown.items()
    }
    means = {m: f"{float(case.errors[m][case.mask].mean()):.1f}" for m in (STAINER, COLOUR_TABLE)}
    about = {"name": case.name, "specimen": case.specimen, "captions": called}
    about |= {"registered": case.registered, "drawing": case.drawing}
    return pictures | about | {"mean_error": means[STAINER], "mean_table_error": means[COLOUR_TABLE]}


def region_pictures(cases: Sequence[Case], window: Window, top: float, count: int) -> list[dict[str, Any]]:
    """The regions with the largest errors of the stainer, enlarged, worst first."""
    named = {case.name: case for case in cases}
    shown = []
    for region in worst_regions(cases, STAINER, count=count):
        case, (row, column), edge = named[region.case], region.corner_px, region.edge_px
        part = (slice(row, row + edge), slice(column, column + edge))
        images = _triple(case, window, part)
        images |= {"error": error_map(case.errors[STAINER][part], case.mask[part], top=top)}
        called = captions(case.simulated)
        y_um, x_um = (n * s for n, s in zip((row, column), case.spacing_um, strict=True))
        shown.append(
            {
                name: picture(image, f"{called[name]}, region of {case.name}", spacing_um=case.spacing_um)
                for name, image in images.items()
            }
            | {"case": case.name, "mean_error": f"{region.error:.1f}", "captions": called}
            | {"where": f"from {y_um:.0f} µm down and {x_um:.0f} µm right of the upper left corner"}
        )
    return shown


def _drawing(pair: Pair) -> str:
    """The cut in its CT volume, where the pair says how large this is."""
    about = pair.notes.get("volume")
    if pair.plane is None or not isinstance(about, dict):
        return ""
    try:
        volume = Grid(tuple(about["shape"]), tuple(about["spacing_um"]), tuple(about["origin_um"]))
    except (KeyError, TypeError, ValueError):
        return ""
    return plane_in_volume(pair.plane, volume) if len(volume.shape) == 3 else ""


def _triple(case: Case, window: Window, part: tuple[slice, slice]) -> dict[str, npt.NDArray[np.uint8]]:
    inside = None if case.inside is None else case.inside[part]
    return {
        "ct": hatched(grey(case.ct[part], *window), inside, opaque=True),
        "virtual": hatched(case.predicted[STAINER][part], inside, opaque=True),
        "real": hatched(case.real[part], case.mask[part]),
    }
