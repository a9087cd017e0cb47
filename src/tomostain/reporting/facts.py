"""Facts about a user's volume or slide, as plain JSON values, and any facts as lines for people."""

from __future__ import annotations

import dataclasses
import math
import shlex
import warnings
from pathlib import Path
from typing import Any

from tomostain.images.anchors import Anchors, anchors_of
from tomostain.images.image import Volume
from tomostain.images.intensity import Intensities, intensities, sparkline
from tomostain.io.slides import read_slide
from tomostain.io.volumes import read_volume
from tomostain.io.volumes.options import VolumeOptions

_LOOK_PX = 512
"""Pixels either side of a slide's middle that are checked for colours."""
_PLACEHOLDER_UM = (1.0, 1.0, 1.0)


def volume_facts(path: Path, options: VolumeOptions) -> dict[str, Any]:
    """What a volume is: grid, type, units, memory, grey values, and what to type next.

    Raises
    ------
    ValueError
        It cannot be read.
    """
    try:
        volume, passed = read_volume(path, **vars(options)), options.spacing_um is not None
    except ValueError as error:
        if "--spacing-um" not in str(error):
            raise
        volume, passed = read_volume(path, **vars(dataclasses.replace(options, spacing_um=_PLACEHOLDER_UM))), False
        facts = _facts_of(path, volume)
        facts |= {"voxel_um": None, "voxel_from": "not stated"}
        commands = [] if _raw_flags(options) else _next_of(path, volume, options, more=" --spacing-um Z Y X")
        facts["next"] = [_convert(path, options) + " --spacing-um Z Y X", *commands]
        return facts
    facts = _facts_of(path, volume)
    facts |= {"voxel_um": list(volume.grid.spacing_um), "voxel_from": "--spacing-um" if passed else "the file"}
    more = f" --spacing-um {' '.join(f'{edge:g}' for edge in volume.grid.spacing_um)}" if passed else ""
    facts["next"] = _next_of(path, volume, options, more=more)
    return facts


def _next_of(path: Path, volume: Volume, options: VolumeOptions, *, more: str) -> list[str]:
    """What to type next with a volume; ``more``: the option for its voxel size."""
    raw, named = _raw_flags(options), shlex.quote(str(path))
    if volume.is_colour:
        planes = shlex.quote(f"{_stem(path)}_planes")
        return [f"tomostain convert {named} {planes} --format ome-tiff-planes{raw}{more}"]
    stain = f"tomostain stain STAINER {named} {shlex.quote(f'{_stem(path)}_stained.ome.zarr')}{raw}{more}"
    if raw:
        return [_convert(path, options) + more, stain]
    return [
        f"tomostain register {named} SLIDE NAME.placement.json{more}",
        f"tomostain pair {named} SLIDE NAME.pair.zarr --placement NAME.placement.json --specimen NAME{more}",
        stain,
    ]


def _convert(path: Path, options: VolumeOptions) -> str:
    out = shlex.quote(f"{_stem(path)}.ome.zarr")
    return f"tomostain convert {shlex.quote(str(path))} {out}{_raw_flags(options)}"


def _raw_flags(options: VolumeOptions) -> str:
    """The options of a volume of raw values, as they are typed again."""
    if options.shape is None or options.dtype is None:
        return ""
    flags = f" --shape {' '.join(str(n) for n in options.shape)} --dtype {options.dtype}"
    return flags + (f" --offset {options.offset}" if options.offset else "")


def _facts_of(path: Path, volume: Volume) -> dict[str, Any]:
    plane = math.prod(volume.shape[1:]) * volume.dtype.itemsize
    facts: dict[str, Any] = {
        "kind": "stained volume" if volume.is_colour else "CT volume",
        "path": str(path),
        "format": volume.about.get("format"),
        "shape": list(volume.shape),
        "dtype": volume.dtype.name,
        "units": volume.about.get("units"),
        "origin_um": list(volume.grid.origin_um),
        "orientation": volume.about.get("orientation"),
        "stain": volume.stain,
        "simulated": volume.simulated,
        "bytes_whole": plane * volume.shape[0],
        "bytes_plane": plane,
    }
    if not volume.is_colour:
        facts["grey_values"] = _grey_facts(intensities(volume))
        anchors = anchors_of(volume)
        facts["grey_values"]["anchors"] = anchors[0].to_json() if anchors else None
    return facts


def _grey_facts(grey: Intensities) -> dict[str, Any]:
    return {
        "smallest": grey.low,
        "largest": grey.high,
        "nan_or_infinite_share": grey.unusable,
        "sampled_voxels": grey.voxels,
        "histogram_from": float(grey.edges[0]),
        "histogram_to": float(grey.edges[-1]),
        "histogram": sparkline(grey.counts),
        "peaks": [{"value": peak.value, "share": peak.share, "material": peak.material} for peak in grey.peaks],
    }


def slide_facts(path: Path, slide_um: float | None) -> dict[str, Any]:
    """What a slide is: size, pixel size and who states it, levels, and what to type next.

    Raises
    ------
    ValueError
        It cannot be read.
    """
    try:
        slide = read_slide(path, pixel_um=slide_um)
        stated, trouble = True, None
    except ValueError as error:
        if "--slide-um" not in str(error) or slide_um is not None:
            raise
        with warnings.catch_warnings(action="ignore"):  # this pixel size is only a placeholder
            slide, stated, trouble = read_slide(path, pixel_um=1.0), False, str(error)
    named = shlex.quote(str(path))
    flag = f" --slide-um {slide_um:g}" if slide_um else ("" if stated else " --slide-um UM")
    middle = [slice(n // 2 - min(n // 2, _LOOK_PX), n // 2 + _LOOK_PX) for n in slide.levels[-1].array.shape[:2]]
    some = slide.levels[-1].array[middle[0], middle[1]]
    grey = ["red = green = blue in its middle"] if (some == some[..., :1]).all() else []
    return {
        "kind": "slide",
        "path": str(path),
        "format": slide.about["format"],
        "shape": list(slide.shape),
        "dtype": "uint8",
        "pixel_um": list(slide.pixel_um) if stated else None,
        "pixel_from": slide.about["pixel_from"] if stated else "not stated",
        "colours": slide.about["colours"],
        "simulated": slide.simulated,
        "levels": [{"shape": list(one.array.shape[:2]), "downsample": list(one.downsample)} for one in slide.levels],
        "notes": [*slide.about["notes"], *([trouble] if trouble else []), *grey],
        "bytes_whole": math.prod(slide.shape),
        "next": [
            f"tomostain register VOLUME {named} NAME.placement.json{flag}",
            f"tomostain pair VOLUME {named} NAME.pair.zarr --placement NAME.placement.json --specimen NAME{flag}",
        ],
    }


def _stem(path: Path) -> str:
    return path.name.partition(".")[0]


def as_text(facts: dict[str, Any]) -> str:
    """Facts as lines for people."""
    lines = []
    for key, value in facts.items():
        word = key.replace("_", " ")
        if value is None or value == [] or key in ("grey_values", "next", "levels"):
            continue
        if key.startswith("bytes"):
            word, value = f"memory, {key.partition('_')[2]}", _size(value)
        elif isinstance(value, bool):
            value = "yes" if value else "no"
        elif isinstance(value, list):
            value = (" x " if key == "shape" else ", " if key == "notes" else " ").join(_short(one) for one in value)
        lines.append(f"{word:18} {_short(value)}")
    lines += [f"{'level':18} {_level(one)}" for one in facts.get("levels", ())]
    if "grey_values" in facts:
        lines += _grey_lines(facts["grey_values"])
    return "\n".join([*lines, *(f"{'next':18} {command}" for command in facts["next"])])


def _grey_lines(grey: dict[str, Any]) -> list[str]:
    lines = [
        f"{'grey values':18} {grey['smallest']:g} to {grey['largest']:g}, of {grey['sampled_voxels']} voxels sampled",
        f"{'':18} {grey['histogram_from']:g} |{grey['histogram']}| {grey['histogram_to']:g}  (logarithmic)",
    ]
    if grey["nan_or_infinite_share"]:
        lines.append(
            f"{'':18} {100 * grey['nan_or_infinite_share']:.3g} % are NaN or infinite: replace them by the value of air"
        )
    for peak in grey["peaks"]:
        probably = f", probably {peak['material']}" if peak["material"] else ""
        lines.append(f"{'peak':18} {peak['value']:g} ({100 * peak['share']:.1f} %){probably}")
    known = (
        f"likely {Anchors(*grey['anchors'])}" if grey["anchors"] else "not found: no peaks of soft tissue and of bone"
    )
    return [*lines, f"{'anchors':18} {known}"]


def _level(level: dict[str, Any]) -> str:
    rows, columns = level["shape"]
    times = level["downsample"][0]
    return f"{rows} x {columns}, " + ("the finest" if times == 1 else f"{times:g} times coarser")


def _size(count: int) -> str:
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
