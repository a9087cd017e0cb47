"""What napari opens by drag and drop: stained volumes and CTs as pyramids, pairs, placements; and a sample specimen.

Colours are one layer, channel last, read as napari asks for it. All layers lie in the volume's um.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from tomostain import runs
from tomostain._imports import require
from tomostain.io.volumes import VolumeError
from tomostain.io.volumes.zarr_groups import attributes_of_node, multiscales
from tomostain.pairs.pair import SUFFIX, load_pair
from tomostain.phantom.cohort import CohortRecipe, write_cohort
from tomostain.viewing.sections import PLACEMENT, section_of
from tomostain.viewing.stores import Store, open_store

LayerData = tuple[Any, dict[str, Any], str]
"""Data, settings and kind of a layer, as napari takes them from a plugin."""
_UM3 = {"units": ("um", "um", "um"), "axis_labels": ("z", "y", "x")}
_UM2 = {"units": ("um", "um"), "axis_labels": ("y", "x")}
_SAMPLE = CohortRecipe(specimens=1, slides=1, size=(48, 128, 128))


def get_reader(path: str | Sequence[str]) -> Callable[[str | Sequence[str]], list[LayerData]] | None:
    """The function that opens a path, None for what is not tomostain's (napari then asks other plugins)."""
    first = path if isinstance(path, str) else path[0] if path else ""
    return _open if _opener(Path(first)) else None


def _open(path: str | Sequence[str]) -> list[LayerData]:
    layers: list[LayerData] = []
    for one in [path] if isinstance(path, str) else path:
        opener = _opener(Path(one))
        if opener is None:
            raise ValueError(f"{one} is not one of tomostain's volumes, pairs or placements")
        layers += opener(Path(one))
    return layers


def _opener(path: Path) -> Callable[[Path], list[LayerData]] | None:
    if path.name.endswith(PLACEMENT):
        return placement_layers
    if path.name.endswith(SUFFIX):
        return pair_layers
    try:
        about = attributes_of_node(path, "") if path.is_dir() else {}
    except (VolumeError, ValueError, OSError):
        return None
    return volume_layers if "tomostain" in about and multiscales(about) else None


def volume_layers(path: Path) -> list[LayerData]:
    """A stained volume as one layer of colours, or a volume of grey values in its units; both as lazy pyramids.

    Raises
    ------
    ValueError
        The volume is damaged, or is being written.
    """
    about = attributes_of_node(path, "")
    is_colour = any(axis.get("name") == "c" for axis in multiscales(about)[0]["axes"])
    store = open_store(path, colours=is_colour)
    grid = store.volume.grid
    settings: dict[str, Any] = {
        "name": path.name.removesuffix(".zarr").removesuffix(".ome"),
        "scale": grid.spacing_um,
        "translate": grid.origin_um,
        "multiscale": True,
        "metadata": {"tomostain": dict(about["tomostain"])},
        **_UM3,
    }
    if is_colour:
        settings |= {"rgb": True}
    else:
        limits = tuple(v * store.slope + store.intercept for v in store.window)
        settings |= {"colormap": "gray", "contrast_limits": limits}
    return [(_levels(store, is_colour=is_colour), settings, "image")]


def pair_layers(path: Path) -> list[LayerData]:
    """A pair: its middle CT plane, its stain, and what does not count."""
    pair = load_pair(path)
    place = {"scale": pair.grid.spacing_um, "translate": pair.grid.origin_um, **_UM2}
    ct = pair.ct[len(pair.ct) // 2]
    left_out = (~pair.mask).astype(np.uint8)
    return [
        (ct, {"name": f"{pair.name} CT", "colormap": "gray", **place}, "image"),
        (pair.stain, {"name": f"{pair.name} {pair.stain_name}", "rgb": True, **place}, "image"),
        (left_out, {"name": f"{pair.name} not compared", "opacity": 0.3, "visible": False, **place}, "labels"),
    ]


def placement_layers(path: Path) -> list[LayerData]:
    """A placement: its section as a polygon in the volume, and the slide laid into it.

    Raises
    ------
    FileNotFoundError
        The slide is neither where it was nor beside the placement.
    """
    section = section_of(path)
    plane, matrix = section.plane, np.asarray(section.matrix)[1:, 1:]
    affine = np.eye(4)
    affine[:3] = matrix * [section.thickness_um, plane.spacing_um, plane.spacing_um, 1.0]
    rows, columns = plane.shape
    ends = [(0, 0), (0, columns - 1), (rows - 1, columns - 1), (rows - 1, 0)]
    corners = np.asarray([affine @ [0.0, row, column, 1.0] for row, column in ends])[:, :3]
    alpha = np.where((section.rgb > 0).any(axis=-1), 255, 0).astype(np.uint8)
    slide = np.dstack([section.rgb, alpha])[None]
    about = {"tomostain": dict(section.placement.notes)}
    frame = {
        "shape_type": "polygon",
        "edge_color": "yellow",
        "face_color": "transparent",
        "edge_width": plane.spacing_um,
    }
    return [
        (slide, {"name": f"slide {section.name}", "rgb": True, "affine": affine, "metadata": about, **_UM3}, "image"),
        ([corners], {"name": f"section {section.name}", **frame, **_UM3}, "shapes"),
    ]


def sample() -> list[LayerData]:
    """A small phantom: CT, its perfect stain and a slide; made on first use, in about a minute, and kept."""
    folder = sample_folder()
    if not runs.is_complete(folder):
        with runs.output(folder, "phantom", recipe=_SAMPLE, seed=_SAMPLE.seed, keep=True):
            folder.mkdir(parents=True, exist_ok=True)
            write_cohort(folder, _SAMPLE)
    specimen = folder / "S00"
    placement = sorted((specimen / "slides").glob(f"*{PLACEMENT}"))[0]
    volumes = [specimen / "ct.ome.zarr", specimen / "stain_truth.ome.zarr"]
    return [layer for path in volumes for layer in volume_layers(path)] + placement_layers(placement)


def sample_folder() -> Path:
    """Where the sample specimen is kept."""
    cache: str = require("pooch", extra="napari").os_cache("tomostain")
    return Path(cache) / "sample-specimen"


def compare() -> Any:
    """The widget that compares a CT and a stain: one over the other, as a slider says, or side by side."""
    napari = require("napari", extra="napari")
    image, viewer = napari.layers.Image, napari.current_viewer()
    widgets = require("magicgui", extra="napari").widgets
    ct = widgets.create_widget(annotation=image, label="CT")
    stain = widgets.create_widget(annotation=image, label="stain")
    share = widgets.FloatSlider(label="stain over CT", value=0.5, min=0.0, max=1.0, step=0.01)
    beside = widgets.CheckBox(label="side by side", value=False)

    def show() -> None:
        below, above = ct.value, stain.value
        if below is None or above is None or below is above:
            return
        layers = viewer.layers
        if layers.index(above) < layers.index(below):
            layers.move(layers.index(above), layers.index(below) + 1)
        below.opacity, above.opacity = 1.0, 1.0 if beside.value else share.value
        above.blending = "translucent"
        share.enabled = not beside.value
        viewer.grid.enabled = beside.value

    def choose() -> None:
        for layer in viewer.layers:
            if isinstance(layer, image) and layer.multiscale:
                (stain if layer.rgb else ct).value = layer

    panel = widgets.Container(widgets=[ct, stain, share, beside])
    for one in (ct, stain, share, beside):
        one.changed.connect(show)
    ct.reset_choices()
    stain.reset_choices()
    choose()
    show()
    return panel


def _levels(store: Store, *, is_colour: bool) -> list[Any]:
    """The levels of a pyramid as lazy arrays (z, y, x[, 3]), in the units of the values."""
    array = require("dask.array", extra="napari")
    group = store.path / store.inside
    levels = []
    for dataset in multiscales(attributes_of_node(store.path, store.inside))[0]["datasets"]:
        level = array.from_zarr(zarr.open_array(group / dataset["path"], mode="r"))
        if is_colour:
            level = array.moveaxis(level, 0, -1)
        elif (store.slope, store.intercept) != (1.0, 0.0):
            level = level.astype(np.float32) * np.float32(store.slope) + np.float32(store.intercept)
        levels.append(level)
    return levels
