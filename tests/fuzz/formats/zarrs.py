"""Zarr volumes: OME-Zarr 0.4 and 0.5 as others write them, and ours; strictly read by zarr alone."""

from __future__ import annotations

import json
import os
import shutil
import struct
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import zarr
from google_crc32c import value as crc32c
from numcodecs import Blosc, GZip, Zstd

from fuzz.bombs import behind_a_frame, blosc_bomb, gzip_bomb, zstd_bomb
from fuzz.formats.common import SHAPE, SPACING_UM, grey, volume
from fuzz.judge import Format, Look, look
from fuzz.mutations import NotHere, Target
from tomostain.images.geometry import Grid
from tomostain.io.ome_zarr import create_volume

CHUNKS = (8, 16, 24)
_UM = {"micrometer": 1.0, "millimeter": 1e3, "nanometer": 1e-3, "angstrom": 1e-4, "meter": 1e6, "centimeter": 1e4}


def multiscales(version: str | None) -> dict[str, Any]:
    """OME-Zarr metadata of one level, as plain JSON."""
    axes = [{"name": name, "type": "space", "unit": "micrometer"} for name in "zyx"]
    datasets = [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": list(SPACING_UM)}]}]
    return {"axes": axes, "datasets": datasets, "name": "ct"} | ({"version": version} if version else {})


def write_04(folder: Path) -> Path:
    path = folder / "v04.ome.zarr"
    root = zarr.open_group(path, mode="w", zarr_format=2)
    root.attrs["multiscales"] = [multiscales("0.4")]
    packer = Blosc(cname="zstd", clevel=3)
    root.create_array(
        "0", data=grey(), chunks=CHUNKS, compressors=packer, chunk_key_encoding={"name": "v2", "separator": "/"}
    )
    return path


def write_04_gzip(folder: Path) -> Path:
    path = folder / "gz04.ome.zarr"
    root = zarr.open_group(path, mode="w", zarr_format=2)
    root.attrs["multiscales"] = [multiscales("0.4")]
    root.create_array("0", data=grey(), chunks=CHUNKS, compressors=GZip(level=3))
    return path


def write_05(folder: Path) -> Path:
    path = folder / "v05.ome.zarr"
    root = zarr.open_group(path, mode="w", zarr_format=3)
    root.attrs["ome"] = {"version": "0.5", "multiscales": [multiscales(None)]}
    root.create_array("0", data=grey(), chunks=CHUNKS, compressors=zarr.codecs.ZstdCodec(level=1))
    return path


def write_bf2raw(folder: Path) -> Path:
    """As bioformats2raw lays out one series: the image in group 0, OME beside it."""
    path = folder / "raw.zarr"
    root = zarr.open_group(path, mode="w", zarr_format=2)
    root.attrs["bioformats2raw.layout"] = 3
    root.create_group("OME").attrs["series"] = ["0"]
    image = root.create_group("0")
    image.attrs["multiscales"] = [multiscales("0.4")]
    image.create_array("0", data=grey(), chunks=CHUNKS, compressors=Zstd(level=1))
    return path


def strict_bf2raw(path: Path) -> Look:
    zarr.open_group(path, mode="r", use_consolidated=False)
    return strict_zarr(path / "0")


def write_05_blosc(folder: Path) -> Path:
    path = folder / "b05.ome.zarr"
    root = zarr.open_group(path, mode="w", zarr_format=3)
    root.attrs["ome"] = {"version": "0.5", "multiscales": [multiscales(None)]}
    root.create_array("0", data=grey(), chunks=CHUNKS, compressors=zarr.codecs.BloscCodec(cname="lz4"))
    return path


def write_plain(path: Path, version: int) -> Path:
    keys = {"name": "v2", "separator": "."} if version == 2 else {"name": "default", "separator": "/"}
    array = zarr.create_array(
        path, data=grey(), chunks=CHUNKS, compressors=None, chunk_key_encoding=keys, zarr_format=version
    )
    array.attrs["element_size_um"] = list(SPACING_UM)
    return path


def strict_plain(path: Path) -> Look:
    array = zarr.open_array(path, mode="r")
    if array.nchunks_initialized < array.nchunks:
        raise ValueError("chunks are missing")
    return look(np.asarray(array[...]), array.attrs["element_size_um"])


def write_ours(folder: Path) -> Path:
    path = folder / "ours.ome.zarr"
    with create_volume(path, Grid(SHAPE, SPACING_UM), dtype=np.uint16) as writer:
        writer[0 : SHAPE[0], 0 : SHAPE[1], 0 : SHAPE[2]] = grey()
    return path


def strict_zarr(path: Path) -> Look:
    """The first level by zarr alone, if every one of its chunks is there and its folder is within the store."""
    root = zarr.open_group(path, mode="r", use_consolidated=False)
    ome = root.attrs.get("ome", root.attrs)
    scales = ome["multiscales"][0]
    below = scales["datasets"][0]["path"]
    if not (path / below).resolve().is_relative_to(path.resolve()):
        raise ValueError("the level lies outside the store")
    array = root[below]
    if array.nchunks_initialized < array.nchunks:
        raise ValueError("chunks are missing")
    names = [axis["name"] for axis in scales["axes"]]
    if names != ["z", "y", "x"]:
        raise ValueError(f"its axes are {names}")
    spacing = np.array([_UM[axis["unit"]] for axis in scales["axes"]], dtype=float)
    for step in (*scales["datasets"][0]["coordinateTransformations"], *scales.get("coordinateTransformations", ())):
        if step["type"] == "scale":
            spacing = spacing * np.asarray(step["scale"])
    about = root.attrs.get("tomostain", {})
    if "slope" in about:
        raise ValueError("calibrated, though it was not")
    return look(np.asarray(array[...]), spacing)


def _chunk(t: Target) -> Path:
    return t.pick(file for file in t.files() if not file.name.startswith((".z", "zarr.")))


def chunk_bomb(t: Target) -> None:
    """A chunk unfolds to 5 GiB, or claims to."""
    t.exact = True
    file = _chunk(t)
    raw = file.read_bytes()
    if raw[:2] == b"\x1f\x8b":
        bomb = gzip_bomb()
    elif raw[:4] == b"\x28\xb5\x2f\xfd":
        bomb = _zstd(t)
    else:
        bomb = blosc_bomb()
    file.write_bytes(bomb)


def _zstd(t: Target) -> bytes:
    bomb = zstd_bomb(claimed=t.pick((None, 2**40, 2**63, SHAPE[0] * 10**6)))
    return t.pick((bomb, behind_a_frame(bomb, skipped=True), behind_a_frame(bomb, skipped=False)))


def chunk_link(t: Target) -> None:
    """A chunk, or the folder it lies in, is a link to one outside the store, or to something that never ends."""
    t.exact = True
    chunk = _chunk(t)
    if t.rng.random() < 0.3 and chunk.parent != t.path and not any(chunk.parent.glob("*z*")):
        away = t.inside.parent / "away"
        shutil.move(chunk.parent, away)
        chunk.parent.symlink_to(away)
        return
    secret = t.inside.parent / "secret"
    shutil.copy(chunk, secret)
    chunk.unlink()
    near = os.path.relpath(secret, chunk.parent)
    chunk.symlink_to(t.pick((secret, near, "/dev/zero", "/proc/self/mem", "/etc/passwd")))


def shard_bomb(t: Target) -> None:
    """A chunk within a shard unfolds to 5 GiB, or claims to; the shard's index is right."""
    t.exact = True
    file = _chunk(t)
    raw = bytearray(file.read_bytes())
    count = next(n for n in range(1, 4097) if crc32c(bytes(raw[-4 - 16 * n : -4])) == struct.unpack("<I", raw[-4:])[0])
    index = np.frombuffer(bytes(raw[-4 - 16 * count : -4]), "<u8").reshape(count, 2).copy()
    bomb = _zstd(t)
    stored = [i for i in range(count) if index[i, 0] != 2**64 - 1]
    index[t.pick(stored)] = len(raw) - 4 - 16 * count, len(bomb)
    packed = index.tobytes()
    file.write_bytes(bytes(raw[: -4 - 16 * count]) + bomb + packed + struct.pack("<I", crc32c(packed)))


def path_outside(t: Target) -> None:
    """The metadata name a level outside the store: an array that is there, and other."""
    t.exact = True
    other = t.inside.parent / "outside.zarr"
    shutil.copytree(t.path, other)
    level = zarr.open_array(other / "0", mode="r+")
    level[...] = 77
    told = t.pick(file for file in t.files() if "multiscales" in file.read_text(errors="replace"))
    lie = t.pick(("../../outside.zarr/0", "0/../../../outside.zarr/0", str(other / "0"), f"file://{other}/0"))
    lie = t.pick((lie, "./../../outside.zarr/0", "..\\..\\outside.zarr\\0", "//" + str(other / "0")))
    told.write_text(told.read_text().replace('"path": "0"', f'"path": {json.dumps(lie)}'))


def codecs(t: Target) -> None:
    """The array names a codec or filter that nobody has, or that runs or imports something."""
    told = [file for file in t.files() if file.name in (".zarray", "zarr.json")]
    file = t.pick(file for file in told if '"shape"' in file.read_text())
    text = json.loads(file.read_text())
    if file.name == ".zarray":
        key = t.pick(("compressor", "filters"))
        lies = (
            {"id": "pickle"},
            {"id": "nobody"},
            {"id": "fixedscaleoffset"},
            {"id": "delta", "dtype": "<u2"},
            3,
            "zlib",
        )
        lie: Any = t.pick(lies)
        text[key] = [lie] if key == "filters" else lie
    else:
        lies = ({"name": "nobody"}, {"name": "bytes"}, {"name": "numcodecs.pickle"}, {"name": "gzip"}, {}, 3, "gzip")
        if t.rng.random() < 0.5:
            text["codecs"].append(t.pick(lies))
        else:
            text["codecs"] = t.pick(([], None, [t.pick(lies)], {"name": "bytes"}))
    if json.dumps(text) == file.read_text():
        raise NotHere("nothing changed")
    file.write_text(json.dumps(text))


_PLAIN = MappingProxyType({"chunk-link": chunk_link, "codecs": codecs})
_ZIPPED = MappingProxyType({**_PLAIN, "chunk-bomb": chunk_bomb})
_OWN = MappingProxyType({**_ZIPPED, "path-outside": path_outside})

ZARRS = {
    "ome-zarr-0.4": Format(write_04, volume(), strict_zarr, _OWN),
    "ome-zarr-0.4-gzip": Format(write_04_gzip, volume(), strict_zarr, _OWN),
    "bioformats2raw": Format(write_bf2raw, volume(), strict_bf2raw, _ZIPPED),
    "ome-zarr-0.5": Format(write_05, volume(), strict_zarr, _OWN),
    "ome-zarr-0.5-blosc": Format(write_05_blosc, volume(), strict_zarr, _OWN),
    "zarr-v2": Format(lambda folder: write_plain(folder / "v2.zarr", 2), volume(), strict_plain, _PLAIN),
    "zarr-v3": Format(lambda folder: write_plain(folder / "v3.zarr", 3), volume(), strict_plain, _PLAIN),
    "ome-zarr-ours": Format(
        write_ours, volume(), strict_zarr, {**_OWN, "shard-bomb": shard_bomb}, frozenset({"chunk-bomb"})
    ),
}
