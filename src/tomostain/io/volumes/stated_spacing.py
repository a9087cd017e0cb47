"""The voxel size that HDF5 files and plain Zarr arrays state beside their data, where it names a unit and is one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from tomostain.images.geometry import Vector
from tomostain.io.units import number_of, um_per

_NAMES = ("voxel_size", "pixel_size", "voxelsize", "pixelsize")
_SUFFIXES = ("um", "mm", "nm", "cm", "m")
_EVEN = 1e-3
"""Share of a step by which the positions along an axis may be uneven."""
_AGREE = 1e-2


def agreed(stated: Mapping[str, Vector], seen: list[str]) -> tuple[Vector | None, str]:
    """One voxel size (z, y, x) of all that were stated, None where there is none or they differ by more than 1 %.

    The second value is reported where the first is None.
    """
    if not stated:
        return None, ", ".join(seen)
    first = next(iter(stated.values()))
    if all(np.allclose(other, first, rtol=_AGREE, atol=0) for other in stated.values()):
        return first, ""
    return None, "it states " + " and ".join(
        f"{edges[0]:g} x {edges[1]:g} x {edges[2]:g} um as {name}" for name, edges in stated.items()
    )


def of_attributes(attributes: Mapping[str, Any]) -> tuple[dict[str, Vector], list[str]]:
    """Voxel sizes among the attributes of an array: ``element_size_um`` (z, y, x), or a size with a unit in its name.

    Also what looks like one but is not enough, as a text for the user.
    """
    stated: dict[str, Vector] = {}
    seen: list[str] = []
    element = _numbers(attributes.get("element_size_um"))
    if element is not None and len(element) == 3:
        stated["element_size_um"] = (element[0], element[1], element[2])
    lower = {str(key).lower(): key for key in attributes}

    def unit_of(name: str) -> Any:
        return next((attributes[lower[key]] for key in (f"{name}_units", f"{name}_unit") if key in lower), None)

    _named(lambda name: _numbers(attributes[lower[name]]) if name in lower else None, unit_of, stated, seen)
    return stated, seen


def of_siblings(group: Any) -> tuple[dict[str, Vector], list[str]]:
    """Voxel sizes among the data sets of an HDF5 group, with their ``units`` attribute."""
    stated: dict[str, Vector] = {}
    seen: list[str] = []

    def node(name: str) -> Any:
        found = next((key for key in _own_names(group) if key.lower() == name), None)
        data = group[found] if found is not None else None
        return data if data is not None and getattr(data, "shape", None) in ((), (1,), (3,)) else None

    def value(name: str) -> list[float] | None:
        data = node(name)
        return None if data is None else _numbers(data[()])

    _named(value, lambda name: node(name).attrs.get("units"), stated, seen)
    return stated, seen


def of_axes(group: Any, shape: tuple[int, ...], first: int) -> Vector | None:
    """Voxel size (z, y, x) in um from the evenly spaced axes of an NXdata group; ``first`` is the place of z."""
    named = group.attrs.get("axes")
    if isinstance(named, (str, bytes)):
        text = named.decode() if isinstance(named, bytes) else named
        names = text.strip("[]").replace(",", ":").split(":")
    elif named is None:
        return None
    else:
        names = [name.decode() if isinstance(name, bytes) else str(name) for name in np.atleast_1d(named)]
    if len(names) != len(shape):
        return None
    steps = [_step(group, names[axis], shape[axis]) for axis in range(first, first + 3)]
    z, y, x = steps
    return None if z is None or y is None or x is None else (z, y, x)


def _step(group: Any, name: str, size: int) -> float | None:
    if name not in _own_names(group):
        return None
    axis = group[name]
    unit = um_per(axis.attrs.get("units", ""))
    if unit is None or getattr(axis, "shape", None) not in ((size,), (size + 1,)) or axis.shape[0] < 2:
        return None
    steps = np.diff(np.asarray(axis[()], dtype=np.float64))
    mean = float(abs(steps.mean()))
    return mean * unit if mean > 0 and np.abs(np.abs(steps) - mean).max() <= _EVEN * mean else None


def _named(
    value_of: Callable[[str], list[float] | None],
    unit_of: Callable[[str], Any],
    stated: dict[str, Vector],
    seen: list[str],
) -> None:
    for name, unit in _spellings():
        found = value_of(name)
        if found is None:
            continue
        factor = um_per(unit) if unit else um_per(unit_of(name) or "")
        if factor is None:
            seen.append(f"{name} = {', '.join(f'{n:g}' for n in found)} names no unit")
        elif len(found) == 1 or len(set(found)) == 1:
            stated[name] = (found[0] * factor,) * 3
        else:
            seen.append(f"{name} does not say which of its numbers is z")
    for stem, unit in ((f"_{stem}", unit) for stem, unit in _spellings()):
        edges = [value_of(axis + stem) for axis in "zyx"]
        units = [unit or (unit_of(axis + stem) if edge else None) for axis, edge in zip("zyx", edges, strict=True)]
        factors = [um_per(word or "") for word in units]
        if all(edges) and all(factors):
            z, y, x = (edge[0] * factor for edge, factor in zip(edges, factors, strict=True) if edge and factor)
            stated[f"x y z{stem}"] = (z, y, x)


def _spellings() -> Iterator[tuple[str, str]]:
    for name in _NAMES:
        yield name, ""
        yield from ((f"{name}_{suffix}", suffix) for suffix in _SUFFIXES)


def _own_names(group: Any) -> list[str]:
    """The names in a group whose links stay in the file."""
    return [name for name in group if type(group.get(name, getlink=True)).__name__ == "HardLink"]


def _numbers(value: Any) -> list[float] | None:
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    if isinstance(value, str):
        value = [number_of(word) for word in value.split()]
    try:
        numbers = np.asarray(value, dtype=np.float64).ravel()
    except (TypeError, ValueError):
        return None
    if value is None or numbers.size not in (1, 3) or not np.isfinite(numbers).all() or not (numbers > 0).all():
        return None
    return [float(n) for n in numbers]
