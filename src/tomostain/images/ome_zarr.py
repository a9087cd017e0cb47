"""OME-Zarr 0.5 (NGFF, Zarr v3) in and out: sharded, multiscale, colours as c z y x with their metadata.

Values are written once per shard by whoever fills the writer; the pyramid is built, and the ``ome`` metadata that makes
the store an image written, only when the writer is left without an error.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import zarr
from yaozarrs import v05
from yaozarrs.v05 import ScaleTransformation, TranslationTransformation
from zarr.codecs import ZstdCodec

from tomostain.images.geometry import Grid
from tomostain.images.image import ColourLast, LazyArray, Volume
from tomostain.images.resample import to_linear, to_srgb

Reduce = Literal["mean", "nearest"]
CHUNK_PX = 64
SHARD_PX = (64, 512, 512)
SMALLEST_LEVEL_PX = 64

UM_PER = {
    "angstrom": 1e-4,
    "nanometer": 1e-3,
    "micrometer": 1.0,
    "millimeter": 1e3,
    "centimeter": 1e4,
    "meter": 1e6,
    "inch": 25400.0,
}
_RGB = (("red", "FF0000"), ("green", "00FF00"), ("blue", "0000FF"))


@dataclass(frozen=True, eq=False)
class VolumeWriter:
    """Takes blocks of a volume that is being written: ``writer[z0:z1, y0:y1, x0:x1] = block``.

    Blocks are (z, y, x), or (z, y, x, 3) for colours. Each ``shard`` should be written by one assignment: what does not
    fill a shard is read back and written again.
    """

    array: zarr.Array[Any]
    colours: int | None
    shard: tuple[int, int, int]
    """Extent (z, y, x) that is one file on disk."""

    def __setitem__(self, window: tuple[slice, ...], block: npt.NDArray[Any]) -> None:
        if self.colours:
            self.array[(slice(None), *window)] = np.ascontiguousarray(np.moveaxis(block, -1, 0))
        else:
            self.array[window] = np.ascontiguousarray(block)


def shard_of(shape: tuple[int, ...], shard: tuple[int, int, int] = SHARD_PX) -> tuple[int, int, int]:
    """The extent (z, y, x) of one file for a volume of this shape: whole chunks, no larger than needed."""
    z, y, x = (min(-(-n // CHUNK_PX) * CHUNK_PX, most) for n, most in zip(shape, shard, strict=True))
    return z, y, x


@contextmanager
def create_volume(
    path: Path,
    grid: Grid,
    *,
    dtype: npt.DTypeLike = np.uint8,
    colours: int | None = None,
    stain: str | None = None,
    name: str | None = None,
    reduce: Reduce = "mean",
    shard: tuple[int, int, int] = SHARD_PX,
    attributes: Mapping[str, Any] | None = None,
) -> Iterator[VolumeWriter]:
    """Create a volume on ``grid`` and hand out its writer; on leaving, build the pyramid and declare it an image.

    Parameters
    ----------
    path
        The folder to write, by custom ``NAME.ome.zarr``.
    colours
        3 for uint8 sRGB colours, None for grey values.
    reduce
        How a coarser level is made: ``mean`` (colours in linear light), or ``nearest`` for labels.
    attributes
        Further JSON that is kept under the ``tomostain`` key; ``slope``, ``intercept`` and ``units`` calibrate grey
        values.
    """
    root = zarr.open_group(path, mode="w", zarr_format=3)
    shapes = _level_shapes(grid.shape)
    levels = [_create_level(root, str(i), shape, dtype, colours, shard) for i, shape in enumerate(shapes)]
    yield VolumeWriter(levels[0], colours, shard_of(grid.shape, shard))
    for finer, coarser in pairwise(levels):
        _halve(finer, coarser, colours, reduce, shard)
    title = name or Path(path).name.removesuffix(".zarr").removesuffix(".ome")
    ome = _metadata(grid, shapes, colours, title, np.dtype(dtype))
    about = {"stain": stain, "reduce": reduce, **(attributes or {})}
    root.attrs.update({"ome": ome, "tomostain": json.loads(json.dumps(about))})


def read_ome_zarr(path: Path, *, spacing_um: tuple[float, ...] | None = None, level: int = 0) -> Volume:
    """Open one level of an OME-Zarr image (0.4 or 0.5) as a lazy Volume.

    Raises
    ------
    ValueError
        The folder is no OME-Zarr image, was not written to the end, has no voxel size, or axes other than (c) z y x.
    """
    path = Path(path)
    try:
        root = zarr.open_group(path, mode="r")
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"{path} is not a Zarr group that can be opened: {error}") from None
    about: dict[str, Any] = dict(root.attrs)
    ome = about.get("ome", about)
    if "multiscales" not in ome:
        raise ValueError(f"{path} has no OME-Zarr metadata; if it was being written, the writing did not finish")
    scales = ome["multiscales"][0]
    axes = [axis["name"] for axis in scales["axes"]]
    datasets = scales["datasets"]
    if not 0 <= level < len(datasets):
        raise ValueError(f"{path} has levels 0 to {len(datasets) - 1}, not {level}")
    stored: Any = root[datasets[level]["path"]]
    if not set(axes) <= {"t", "c", "z", "y", "x"} or not {"z", "y", "x"} <= set(axes):
        raise ValueError(f"{path} has axes {axes}; a volume needs z, y, x and at most t and c beside them")
    for axis, size in zip(axes, stored.shape, strict=True):
        if (axis == "t" and size != 1) or (axis == "c" and size not in (1, 3)):
            raise ValueError(f"{path} has {size} along {axis}; only one time point and 1 or 3 channels can be read")
    scale, offset = _transform(scales, datasets[level], len(axes))
    space = [axes.index(name) for name in "zyx"]
    if space != sorted(space):
        raise ValueError(f"{path} has axes {axes}; they must run in the order z, y, x")
    units = [scales["axes"][i].get("unit") for i in space]
    if spacing_um is None and not all(unit in UM_PER for unit in units):
        raise ValueError(f"{path} has no voxel size in a known unit ({units}); pass --spacing-um z y x")
    spacing = spacing_um or tuple(scale[i] * UM_PER[unit] for i, unit in zip(space, units, strict=True))
    origin = tuple(offset[i] * UM_PER.get(unit, 1.0) for i, unit in zip(space, units, strict=True))
    array = _spatial(stored, axes)
    ours: dict[str, Any] = dict(about.get("tomostain", {}))
    if "slope" in ours and len(array.shape) == 3:
        array = Calibrated(array, float(ours["slope"]), float(ours.get("intercept", 0.0)))
    grid = Grid(tuple(array.shape[:3]), spacing, origin)
    return Volume(array, grid, name=path.name, stain=ours.get("stain"))


@dataclass(frozen=True, eq=False)
class Calibrated:
    """A lazy array in calibrated units: float32 ``slope`` x stored value + ``intercept``."""

    source: LazyArray
    slope: float
    intercept: float

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.source.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.float32)

    def __getitem__(self, window: Any, /) -> Any:
        stored = np.asarray(self.source[window], dtype=np.float32)
        return stored * np.float32(self.slope) + np.float32(self.intercept)


@dataclass(frozen=True, eq=False)
class _Squeezed:
    """A stored array with leading axes of length one left out."""

    source: LazyArray
    leading: int

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.source.shape[self.leading :])

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self.source.dtype)

    def __getitem__(self, window: Any, /) -> Any:
        where = window if isinstance(window, tuple) else (window,)
        return self.source[(*(0,) * self.leading, *where)]


def _spatial(stored: Any, axes: list[str]) -> LazyArray:
    array: LazyArray = _Squeezed(stored, 1) if axes[0] == "t" else stored
    if "c" not in axes:
        return array
    return ColourLast(array) if array.shape[0] == 3 else _Squeezed(array, 1)


def _transform(scales: dict[str, Any], dataset: dict[str, Any], n_axes: int) -> tuple[list[float], list[float]]:
    """Scale and translation of a level, in axis units, with those of the whole multiscale applied after them."""
    scale, offset = [1.0] * n_axes, [0.0] * n_axes
    for step in (*dataset.get("coordinateTransformations", ()), *(scales.get("coordinateTransformations") or ())):
        if step["type"] == "scale":
            scale = [s * float(f) for s, f in zip(scale, step["scale"], strict=True)]
            offset = [o * float(f) for o, f in zip(offset, step["scale"], strict=True)]
        elif step["type"] == "translation":
            offset = [o + float(t) for o, t in zip(offset, step["translation"], strict=True)]
    return scale, offset


def _level_shapes(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    shapes = [tuple(shape)]
    while max(shapes[-1]) > SMALLEST_LEVEL_PX and len(shapes) < 10:
        shapes.append(tuple(max(1, -(-n // 2)) for n in shapes[-1]))
    return shapes


def _create_level(
    root: zarr.Group,
    name: str,
    shape: tuple[int, ...],
    dtype: npt.DTypeLike,
    colours: int | None,
    shard: tuple[int, int, int],
) -> zarr.Array[Any]:
    first = (colours,) if colours else ()
    return root.create_array(
        name,
        shape=(*first, *shape),
        dtype=np.dtype(dtype),
        chunks=(*first, CHUNK_PX, CHUNK_PX, CHUNK_PX),
        shards=(*first, *shard_of(shape, shard)),
        compressors=ZstdCodec(level=1),
        dimension_names=["c", "z", "y", "x"] if colours else ["z", "y", "x"],
    )


def _halve(
    finer: zarr.Array[Any],
    coarser: zarr.Array[Any],
    colours: int | None,
    reduce: Reduce,
    shard: tuple[int, int, int],
) -> None:
    """Fill a level from the one above it, one shard at a time."""
    shape = coarser.shape[-3:]
    steps = shard_of(shape, shard)
    lead = (slice(None),) if colours else ()
    for corner in np.ndindex(*(-(-n // s) for n, s in zip(shape, steps, strict=True))):
        here = tuple(slice(i * s, min((i + 1) * s, n)) for i, s, n in zip(corner, steps, shape, strict=True))
        there = tuple(slice(2 * part.start, 2 * part.stop) for part in here)
        block = np.asarray(finer[(*lead, *there)])
        if reduce == "nearest":
            coarser[(*lead, *here)] = block[..., ::2, ::2, ::2]
            continue
        odd = [(0, n % 2) for n in block.shape[-3:]]
        block = np.pad(block, ([(0, 0)] if colours else []) + odd, mode="edge")
        coarser[(*lead, *here)] = _means(block, bool(colours))


def _means(block: npt.NDArray[Any], colours: bool) -> npt.NDArray[Any]:
    """Means over 2 x 2 x 2 voxels of an even-sized block; colours in linear light, integers rounded half up."""
    light = to_linear(block) if colours else block.astype(np.float32)
    *lead, z, y, x = light.shape
    mean = light.reshape(*lead, z // 2, 2, y // 2, 2, x // 2, 2).mean(axis=(-5, -3, -1))
    if colours:
        return to_srgb(mean)
    whole = np.issubdtype(block.dtype, np.integer)
    return np.asarray(np.floor(mean + 0.5).astype(block.dtype) if whole else mean)


def _metadata(
    grid: Grid, shapes: list[tuple[int, ...]], colours: int | None, title: str, dtype: np.dtype[Any]
) -> dict[str, Any]:
    lead = [1.0] if colours else []
    datasets = []
    for i in range(len(shapes)):
        scale = [s * 2**i for s in grid.spacing_um]
        shift = [o + (2**i - 1) / 2 * s for o, s in zip(grid.origin_um, grid.spacing_um, strict=True)]
        placed: list[ScaleTransformation | TranslationTransformation] = [
            ScaleTransformation(scale=[*lead, *scale]),
            TranslationTransformation(translation=[*([0.0] if colours else []), *shift]),
        ]
        datasets.append(v05.Dataset(path=str(i), coordinateTransformations=placed))
    space = [v05.SpaceAxis(name=name, type="space", unit="micrometer") for name in "zyx"]
    axes: list[Any] = [v05.ChannelAxis(name="c", type="channel"), *space] if colours else [*space]
    omero: dict[str, Any] | None = None
    if colours:
        window = {"min": 0, "max": 255, "start": 0, "end": 255}
        channels = [{"label": label, "color": code, "active": True, "window": window} for label, code in _RGB]
        omero = {"channels": channels, "rdefs": {"model": "color"}}
    image = v05.Image(
        version="0.5",
        multiscales=[v05.Multiscale(name=title, axes=axes, datasets=datasets)],
        omero=omero,  # type: ignore[arg-type]
    )
    text: dict[str, Any] = image.model_dump(mode="json", exclude_none=True, exclude_unset=False)
    return text
