"""The metadata of a Zarr folder: documents that cannot lead out of it, and what can be chosen inside."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tomostain.io.inside import inside_folder
from tomostain.io.volumes.headers import VolumeError
from tomostain.io.volumes.stated_values import projections, refuse_projections

METADATA = ("zarr.json", ".zarray", ".zgroup")
_METADATA_BYTES = 2**24
_MOST_FOLDERS = 2000
_BESIDE_IMAGES = ("OME", "labels")
"""Groups that hold no image of their own: bioformats2raw's metadata, and masks of the image beside them."""


@dataclass(frozen=True)
class Choice:
    """An image or an array inside a Zarr folder: an image's group and one of its levels, or an array's folder."""

    where: str
    level: int | None
    attributes: Mapping[str, Any]


def choose(path: Path, inside: str, name: str) -> Choice:
    """What ``inside`` names: a level, an image, an array, or a group that holds one image or one array alone.

    Raises
    ------
    VolumeError
        There is nothing of that name, or there are several to choose from.
    """
    attributes = attributes_of_node(path, inside)
    if multiscales(attributes):
        return Choice(inside, 0, attributes)
    above, _, last = inside.rpartition("/")
    levels = multiscales(attributes_of_node(path, above)) if inside else []
    if levels:
        named = [str(level.get("path")).strip("/") for level in levels[0]["datasets"]]
        if last.isdecimal() or last in named:
            level = named.index(last) if last in named and not last.isdecimal() else int(last)
            return Choice(above, level, attributes_of_node(path, above))
    if is_array(metadata(path, inside)):
        return Choice(inside, None, attributes)
    if not (path / inside).is_dir():
        raise VolumeError(f"{path.name} holds no {inside}; {_listed(path, [*_found(path, '')])}")
    return _only_one(path, inside, name)


def metadata(path: Path, where: str) -> dict[str, Any]:
    """The metadata document of a group or array, {} where there is none."""
    for file in METADATA:
        found = _json(path, where, file)
        if found is not None:
            return found
    return {}


def attributes_of_node(path: Path, where: str) -> dict[str, Any]:
    """The attributes of a group or array, {} where it has none."""
    about = metadata(path, where)
    found = about.get("attributes") if about.get("zarr_format") == 3 else _json(path, where, ".zattrs")
    return dict(found or {})


def is_array(about: Mapping[str, Any]) -> bool:
    """Whether a metadata document is an array's, in either version of Zarr."""
    return about.get("node_type") == "array" or ("shape" in about and "node_type" not in about)


def multiscales(attributes: Mapping[str, Any]) -> list[Any]:
    """The multiscales of an OME-Zarr image, in the place of version 0.5 or before it; [] where it is none."""
    ome = attributes.get("ome", attributes)
    return list(ome.get("multiscales") or []) if isinstance(ome, dict) else []


def projections_at(path: Path, where: str) -> str:
    """Why an array is raw projections, by the arrays in its group; empty where it is not."""
    name, beside = where.rpartition("/")[2], _arrays_beside(path, where)
    return projections(name, beside.get(name, ()), beside)


def _arrays_beside(path: Path, where: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the arrays in an array's group, itself among them."""
    above = where.rpartition("/")[0]
    found = {}
    for folder in _folders(path, above) if where else ():
        about = metadata(path, f"{above}/{folder}".strip("/"))
        if is_array(about):
            found[folder] = tuple(int(n) for n in about["shape"])
    return found


def _only_one(path: Path, where: str, name: str) -> Choice:
    found = [*_found(path, where)]
    images = [one for one in found if one.level is not None]
    if len(images) == 1:
        return images[0]
    arrays = {one.where: one for one in found if one.level is None and len(metadata(path, one.where)["shape"]) > 2}
    reasons = {where: projections_at(path, where) for where in arrays} if not images else {}
    own = [one for where, one in arrays.items() if not reasons.get(where)]
    if arrays and not own and not images:
        refuse_projections(name, next(iter(reasons.values())))
    unnamed = all(one.where.rpartition("/")[2].isdecimal() for one in own)
    if not images and len(own) == 1 and not unnamed:
        return own[0]
    if images:
        raise VolumeError(f"{name} holds {len(images)} images; {_listed(path, images)}")
    if not own:
        raise VolumeError(f"{name} holds no image; {_listed(path, [*_found(path, '')])}")
    unfinished = ", or, if it was being written, the writing did not finish"
    raise VolumeError(f"{name} has no OME-Zarr metadata; {_listed(path, own)}{unfinished if unnamed else ''}")


def _listed(path: Path, found: list[Choice]) -> str:
    names = sorted((one.where for one in found if one.where), key=lambda name: (len(name), name))
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return (
        f"choose one of {', '.join(f'{path.name}::/{one}' for one in names[:8])}{more}"
        if names
        else "if it was being written, the writing did not finish"
    )


def _found(path: Path, where: str) -> Iterator[Choice]:
    """The images, and the arrays that belong to none, in a group and the groups below it."""
    waiting, looked_at = [where], 0
    while waiting:
        here = waiting.pop(0)
        looked_at += 1
        if looked_at > _MOST_FOLDERS:
            return
        attributes = attributes_of_node(path, here)
        if multiscales(attributes):
            yield Choice(here, 0, attributes)
        elif is_array(metadata(path, here)):
            yield Choice(here, None, attributes)
        else:
            waiting += [f"{here}/{name}".lstrip("/") for name in _folders(path, here) if name not in _BESIDE_IMAGES]


def _folders(path: Path, where: str) -> list[str]:
    """The groups and arrays directly in a group, those with numbers for names in their order."""
    folders = [
        folder.name for folder in (path / where).iterdir() if any((folder / file).is_file() for file in METADATA)
    ]
    return sorted(folders, key=lambda name: (not name.isdecimal(), len(name) if name.isdecimal() else 0, name))


def _json(path: Path, where: str, file: str) -> dict[str, Any] | None:
    if any(part in ("..", "") for part in where.split("/")[:-1]) or where.endswith("..") or "\\" in where:
        raise VolumeError(f"{path.name} names {where!r}, which leads out of its own folder; it is not safe to read")
    at = inside_folder(path, f"{where}/{file}".lstrip("/"), path.name)
    if not at.is_file():
        return None
    if at.stat().st_size > _METADATA_BYTES:
        raise VolumeError(f"{path.name} has {at.stat().st_size} bytes of metadata in {file}; it is damaged")
    found = json.loads(at.read_text(encoding="utf-8"))
    if not isinstance(found, dict):
        raise VolumeError(f"{path.name} has no metadata in {file}; it is damaged")
    return found
