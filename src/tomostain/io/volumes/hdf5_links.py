"""Where in an HDF5 file the data are: hard, soft and external links followed one by one, so that each is checked."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py

from tomostain.io.inside import OutsideError, inside_folder
from tomostain.io.volumes.headers import VolumeError
from tomostain.io.volumes.stated_values import SIGNS_OF_PROJECTIONS, Scale, projections, stated_scale

_MOST_HOPS = 32
_MOST_NODES = 20_000
_MOST_ABOVE = 3


class _BadLink(VolumeError):
    """A link that leads nowhere or in a circle."""


@dataclass(frozen=True)
class Node:
    """An object in an HDF5 file: the file that holds it and the path of hard links that leads to it."""

    file: Path
    path: str = "/"
    beside: Node | None = None
    """The group through which it was reached; NeXus keeps what describes data there."""

    @contextmanager
    def open(self) -> Iterator[Any]:
        with h5py.File(self.file, "r") as file:
            yield file[self.path]


@dataclass(frozen=True)
class Candidate:
    """A data set that could be a volume."""

    node: Node
    name: str
    """The path that a user would give."""
    voxels: int
    is_signal: bool
    projections: str
    """Why it is raw projections and no volume; empty where it is not."""


def find(path: Path, inside: str) -> Node:
    """The object that a path inside a file leads to, all links followed.

    Raises
    ------
    VolumeError
        There is none, a link leads out of the file's folder, or links lead in a circle.
    """
    return _follow(Node(path), inside, path)


def nexus_default(path: Path) -> Node | None:
    """The signal of NeXus' default plot, where a file names one that can be a volume."""
    node = Node(path)
    for _ in range(_MOST_HOPS):
        with node.open() as group:
            if not isinstance(group, h5py.Group):
                return node if is_volume(group) and not why_projections(node, group) else None
            onward = _text(group.attrs.get("default"))
            signal = None if onward else _signal(group)
        if not onward and not signal:
            return None
        node = _follow(node, str(onward or signal), path)
    raise VolumeError(f"{path.name}: its 'default' attributes lead in a circle; choose with {path.name}::/group/data")


def candidates(path: Path, inside: str = "/") -> list[Candidate]:
    """All data sets below a group that could be volumes, each once, by the path through its NXdata group if it has one.

    Raises
    ------
    VolumeError
        There is none, and a link that was not followed leads out of the folder; or there are too many objects.
    """
    found: dict[tuple[Path, int], Candidate] = {}
    groups: set[tuple[Path, int]] = set()
    waiting: list[tuple[Node, str]] = [(find(path, inside), inside.rstrip("/"))]
    bad_link: ValueError | None = None
    looked_at = 0
    while waiting:
        node, inner = waiting.pop()
        with node.open() as group:
            identity = _identity(node, group)
            if identity in groups:
                continue
            groups.add(identity)
            names, signal = list(group), _signal(group)
        for name in names:
            looked_at += 1
            if looked_at > _MOST_NODES:
                raise VolumeError(f"{path.name} holds more than {_MOST_NODES} objects; choose with ::/group/data")
            try:
                child = _follow(node, name, path)
            except (_BadLink, OutsideError) as error:
                bad_link = bad_link or error
                continue
            with child.open() as opened:
                if isinstance(opened, h5py.Group):
                    waiting.append((child, f"{inner}/{name}"))
                elif is_volume(opened):
                    identity = _identity(child, opened)
                    known = found.get(identity)
                    if known is None or (name == signal and not known.is_signal):
                        voxels = math.prod(opened.shape)
                        why = why_projections(child, opened)
                        found[identity] = Candidate(child, f"{inner}/{name}", voxels, name == signal, why)
    if not found and bad_link is not None:
        raise bad_link
    return sorted(found.values(), key=lambda one: (bool(one.projections), -one.voxels, one.name))


def why_projections(node: Node, data: h5py.Dataset) -> str:
    """Why a data set is raw projections, by the angles, flats and darks that stand with it; empty where it is not."""
    found = _beside(node, data, SIGNS_OF_PROJECTIONS)
    shapes = {name: tuple(one.shape) for name, one in found.items() if one.shape}
    return projections(node.path.rpartition("/")[2], tuple(data.shape), shapes)


def scale_of(name: str, node: Node, data: h5py.Dataset) -> Scale:
    """How stored numbers become values, by the attributes of a data set and the scales that NXdata keeps beside it.

    Raises
    ------
    VolumeError
        A scale is stated that is not a number.
    """
    stated = dict(data.attrs)
    for kind in ("scaling_factor", "offset"):
        own = f"{node.path.rpartition('/')[2]}_{kind}"
        found = _beside(node, data, (own, kind), near=True)
        one = found.get(own, found.get(kind))
        if kind not in stated and one is not None and one.shape is not None and one.size == 1:
            stated[kind] = one[()]
    return stated_scale(name, stated)


def _beside(node: Node, data: h5py.Dataset, names: Collection[str], *, near: bool = False) -> dict[str, h5py.Dataset]:
    """Data sets of these names in a data set's group and the one it was reached through; (not near) those of its entry.

    An entry keeps angles in ``sample`` and keys of images in ``instrument/detector``. Only hard links count, so that no
    other file is opened.
    """
    groups = [data.parent]
    if node.beside is not None and node.beside.file == node.file:
        groups.append(data.file[node.beside.path])
    above = data.parent
    for _ in range(0 if near else _MOST_ABOVE):
        above = above.parent
        groups += [above, _child(above, "sample"), _child(_child(above, "instrument"), "detector")]
    found: dict[str, h5py.Dataset] = {}
    for group, name in itertools.product(groups, names):
        one = _child(group, name)
        if isinstance(one, h5py.Dataset):
            found.setdefault(name, one)
    return found


def _child(group: Any, name: str) -> Any:
    link = group.get(name, getlink=True) if isinstance(group, h5py.Group) and name in group else None
    return group[name] if isinstance(link, h5py.HardLink) else None


def is_volume(data: Any) -> bool:
    """Whether an object is a data set of numbers with three axes, or more of which the others have length one."""
    if not isinstance(data, h5py.Dataset) or data.shape is None or data.dtype.kind not in "uif":
        return False
    return len(data.shape) >= 3 and len(data.shape) - sum(n == 1 for n in data.shape) <= 3 and 0 not in data.shape


def _follow(start: Node, inside: str, root: Path) -> Node:
    """Walk a path part by part; links to links are followed, at most 32 of them."""
    file, beside = start.file, start
    done = [] if inside.startswith("/") else _parts(start.path)
    todo = _parts(inside)
    hops, own = 0, len(todo)
    while todo:
        here = "/" + "/".join(done)
        part = todo.pop(0)
        with h5py.File(file, "r") as opened:
            group = opened[here]
            if part == ".." or not isinstance(group, h5py.Group) or part not in group.keys():  # noqa: SIM118
                raise _BadLink(f"{root.name} holds no {here.rstrip('/')}/{part}")
            link = group.get(part, getlink=True)
        own -= 1
        if own == 0:
            beside = Node(file, here)
        if isinstance(link, h5py.HardLink):
            done = [*done, part]
            continue
        hops += 1
        where = f"{root.name}::{here.rstrip('/')}/{part}"
        if hops > _MOST_HOPS:
            raise _BadLink(f"{where} is a link that leads in a circle")
        if isinstance(link, h5py.ExternalLink):
            target = inside_folder(root.parent, link.filename, where, beside=file.parent)
            if not target.is_file():
                raise _BadLink(f"{where} takes its values from {link.filename}, which is not there; copy it here")
            file, done = target, []
        elif link.path.startswith("/"):
            done = []
        todo = _parts(link.path) + todo
    return Node(file, "/" + "/".join(done), beside)


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]


def _identity(node: Node, opened: Any) -> tuple[Path, int]:
    return node.file.resolve(), int(h5py.h5o.get_info(opened.id).addr)


def _signal(group: Any) -> str | None:
    """The name of an NXdata group's signal, by its attribute or, in the old way, by the data set's."""
    named = _text(group.attrs.get("signal"))
    if named is not None:
        return named
    if _text(group.attrs.get("NX_class")) != "NXdata":
        return None
    for name in group:
        if isinstance(group.get(name, getlink=True), h5py.HardLink) and isinstance(group[name], h5py.Dataset):
            mark = group[name].attrs.get("signal")
            if mark is not None and str(_text(mark) or mark) == "1":
                return str(name)
    return None


def _text(value: Any) -> str | None:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return str(value) if isinstance(value, str) else None
