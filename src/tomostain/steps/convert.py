"""Step: from any volume or slide that can be read to any format that can be written, values and sizes kept."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from tomostain import runs
from tomostain._settings import PIXEL_UM, Within, check_numbers
from tomostain.images.cropping import Span, part_of_slide, part_of_volume
from tomostain.images.image import Slide
from tomostain.io.slides import is_slide, read_slide
from tomostain.io.volumes import read_volume
from tomostain.io.volumes.options import AS_STATED, VolumeOptions
from tomostain.io.writers import FORMATS, check_room, check_writable, format_of, write_volume
from tomostain.io.writers.pyramidal_tiff import write_slide

SLIDE_SUFFIXES = (".ome.tif", ".ome.tiff", ".tif", ".tiff")


@Parameter(name="*")
@dataclass(frozen=True)
class ConvertRecipe:
    """Which part of the source is written, and how."""

    format: str | None = None
    """Format to write, where the ending of OUT does not say it: ome-zarr, tiff-stack, ome-tiff-planes, hdf5 ..."""
    slide_um: Annotated[float | None, PIXEL_UM] = None
    """Pixel size in um, where the slide does not state it."""
    planes: Annotated[tuple[int, int] | None, Within(0, 2**31)] = None
    """First plane and the one after the last; default: all."""
    roi: Annotated[tuple[int, int, int, int] | None, Within(0, 2**31)] = None
    """Rows and columns, y0 y1 x0 x1 px; the ends are excluded."""
    level: Annotated[int, Within(0, 64)] = 0
    """Level of a slide's pyramid, 0 the finest. A level of an OME-Zarr volume is NAME.ome.zarr::2."""
    jpeg_quality: Annotated[int | None, Within(1, 100)] = None
    """Slides: lossy JPEG of this quality, 1-100; default: lossless."""
    reading: Annotated[VolumeOptions, Parameter(name="*")] = AS_STATED

    def __post_init__(self) -> None:
        check_numbers(self)


def convert(source: Path, out: Path, *, recipe: ConvertRecipe = ConvertRecipe()) -> Path:
    """Convert a volume or a slide to another format; its values stay the same.

    OUT's ending chooses the format: .ome.zarr, .tif (ImageJ), .ome.tif, no ending (a folder of TIFF slices), .h5,
    .nrrd, .mha, .nii, .nii.gz, .npy, .raw; a slide becomes a pyramidal .tif or .ome.tif. What the format cannot store
    is reported. OUT appears when it is complete.

    Parameters
    ----------
    source
        A volume or slide that tomostain reads.
    out
        The file or folder to be written.

    Returns
    -------
    Path
        ``out``.

    Raises
    ------
    ValueError
        ``out`` exists, cannot hold these values, or the disk is too full.

    Example
    -------
    tomostain convert slices/ ct.ome.zarr --spacing-um 5 5 5
    tomostain convert scan.raw ct.ome.zarr --shape 900 1024 1024 --dtype uint16 --spacing-um 5 5 5
    tomostain convert stained.ome.zarr stained_planes/ --format ome-tiff-planes --planes 100 110
    tomostain convert slide.ndpi slide.ome.tif --level 2
    """
    source, out = Path(source), Path(out)
    with runs.output(out, "convert", recipe=recipe, inputs=[source]) as made:
        made.results |= _convert(source, out, recipe)
    return out


def _convert(source: Path, out: Path, recipe: ConvertRecipe) -> dict[str, Any]:
    """Write ``out``; returns the results for its record."""
    if is_slide(source):
        if recipe.planes is not None:
            raise ValueError(f"{source.name} is a slide and has no planes; use --roi y0 y1 x0 x1")
        slide = part_of_slide(read_slide(source, pixel_um=recipe.slide_um), recipe.level, _roi(recipe))
        return _write_slide(slide, out, recipe)
    if recipe.level:
        raise ValueError(f"--level is for slides; a level of a volume is {source.name}::{recipe.level}")
    volume = part_of_volume(read_volume(source, **vars(recipe.reading)), recipe.planes, _roi(recipe))
    kind = format_of(out, recipe.format)
    check_writable(out, volume, kind)
    lost = write_volume(out, volume, kind)
    for loss in lost:
        warnings.warn(f"{FORMATS[kind].what} does not store {loss}; it is in the record", stacklevel=2)
    return {
        "format": kind,
        "shape": volume.shape,
        "dtype": volume.dtype.name,
        "spacing_um": volume.grid.spacing_um,
        "origin_um": volume.grid.origin_um,
        "not_kept": lost,
    }


def _write_slide(slide: Slide, out: Path, recipe: ConvertRecipe) -> dict[str, Any]:
    ending = next((suffix for suffix in SLIDE_SUFFIXES if out.name.lower().endswith(suffix)), None)
    if ending is None or recipe.format not in (None, "tiff", "ome-tiff"):
        raise ValueError(f"{slide.name} is a slide; it is written as {' or '.join(SLIDE_SUFFIXES)}, not {out.name}")
    ome = recipe.format == "ome-tiff" if recipe.format else ending.startswith(".ome")
    check_room(out, math.prod(slide.shape) * (0.05 if recipe.jpeg_quality else 0.5))
    settings: dict[str, Any] = {"pixel_um": slide.pixel_um, "jpeg_quality": recipe.jpeg_quality, "ome": ome}
    write_slide(out, slide.array, description=slide.simulated, **settings)
    return {
        "format": "ome-tiff" if ome else "tiff",
        "shape": slide.shape,
        "pixel_um": slide.pixel_um,
        "colours": slide.about["colours"],
        "notes": slide.about["notes"],
    }


def _roi(recipe: ConvertRecipe) -> tuple[Span | None, Span | None]:
    if recipe.roi is None:
        return None, None
    top, bottom, left, right = recipe.roi
    return (top, bottom), (left, right)
