"""Peak memory of reading one plane out of a 4 GiB volume, for each format that is read lazily.

python benchmarks/read_memory.py [FORMAT ...] writes each volume (sparse, or one piece of it over and over), reads its
middle plane in a process of its own, and prints the peak above what that process had after its imports.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import tifffile
import zarr

from _results import Figure, save

SHAPE = (512, 2048, 2048)
DTYPE = np.dtype("<u2")
SPACING_UM = (3.0, 3.0, 3.0)
ALLOWED_MIB = 300
PLANE_BYTES = SHAPE[1] * SHAPE[2] * DTYPE.itemsize
VOLUME_BYTES = SHAPE[0] * PLANE_BYTES

CHILD = """
import sys
from pathlib import Path
from tomostain.io.volumes import read_volume

def status(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key))

raw = {"shape": (512, 2048, 2048), "dtype": "uint16"} if sys.argv[1].endswith(".raw") else {}
before = status("VmRSS")
Path("/proc/self/clear_refs").write_text("5")
volume = read_volume(Path(sys.argv[1]), spacing_um=(3.0, 3.0, 3.0), **raw)
assert volume.shape == (512, 2048, 2048), volume.shape
plane = volume[256]
assert plane.shape == (2048, 2048)
print((status("VmHWM") - before) / 1024)
"""


def plane() -> np.ndarray:
    """Values that compress somewhat: 12 bits of noise on every fourth row."""
    values = np.full(SHAPE[1:], 1000, DTYPE)
    values[::4] += np.random.default_rng(0).integers(0, 4096, (SHAPE[1] // 4, SHAPE[2]), dtype=np.uint16)
    return values


def sparse(path: Path, header: bytes) -> Path:
    """A header and 4 GiB of zeros that take no room."""
    path.write_bytes(header)
    os.truncate(path, len(header) + VOLUME_BYTES)
    return path


def npy(folder: Path) -> Path:
    head = f"{{'descr': '<u2', 'fortran_order': False, 'shape': {SHAPE}, }}".ljust(117) + "\n"
    return sparse(folder / "ct.npy", b"\x93NUMPY\x01\0" + struct.pack("<H", len(head)) + head.encode())


def raw(folder: Path) -> Path:
    return sparse(folder / "ct.raw", b"")


def nrrd(folder: Path, encoding: str = "raw") -> Path:
    head = (
        f"NRRD0004\ntype: uint16\ndimension: 3\nsizes: 2048 2048 512\nspacings: 0.003 0.003 0.003\n"
        f"endian: little\nencoding: {encoding}\n\n"
    )
    if encoding == "raw":
        return sparse(folder / "ct.nrrd", head.encode())
    return streamed(folder / "ct.nrrd", head.encode(), b"", 31)


def mha(folder: Path, *, compressed: bool = False) -> Path:
    head = (
        "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\n"
        f"CompressedData = {compressed}\nElementSpacing = 0.003 0.003 0.003\nDimSize = 2048 2048 512\n"
        "ElementType = MET_USHORT\nElementDataFile = LOCAL\n"
    )
    if not compressed:
        return sparse(folder / "ct.mha", head.encode())
    return streamed(folder / "ct.mha", head.encode(), b"", 15)


def _nifti_header() -> bytes:
    head = bytearray(352)
    struct.pack_into("<i", head, 0, 348)
    struct.pack_into("<8h", head, 40, 3, 2048, 2048, 512, 1, 1, 1, 1)
    struct.pack_into("<2h", head, 70, 512, 16)
    struct.pack_into("<4f", head, 76, 1.0, 0.003, 0.003, 0.003)
    struct.pack_into("<3f", head, 108, 352.0, 1.0, 0.0)
    head[123], head[344:348] = 2, b"n+1\0"
    return bytes(head)


def nifti(folder: Path) -> Path:
    return sparse(folder / "ct.nii", _nifti_header())


def nifti_gzip(folder: Path) -> Path:
    return streamed(folder / "ct.nii.gz", b"", _nifti_header(), 31)


def streamed(path: Path, head: bytes, first: bytes, wbits: int) -> Path:
    """A header and one deflate stream (zlib 15, gzip 31) of 512 planes that are all the same."""
    packer = zlib.compressobj(1, zlib.DEFLATED, wbits)
    content = plane().tobytes()
    with path.open("wb") as file:
        file.write(head + packer.compress(first))
        for _ in range(SHAPE[0]):
            file.write(packer.compress(content))
        file.write(packer.flush())
    return path


def isq(folder: Path) -> Path:
    head = bytearray(512)
    head[:16] = b"CTDATA-HEADER_V1"
    struct.pack_into("<6i", head, 44, 2048, 2048, 512, 6144, 6144, 1536)
    struct.pack_into("<i", head, 88, 4096)
    return sparse(folder / "ct.isq", bytes(head))


def aim(folder: Path) -> Path:
    numbers = [0, 0, 0, 2048, 2048, 512, *[0] * 15, 3000, 3000, 3000]
    about = struct.pack("<4i24q", 0, 0, 0, 0x00020002, *numbers).ljust(224, b"\0")
    return sparse(folder / "ct.aim", b"AIMDATA_V030   \0" + struct.pack("<5q", 40, 224, 0, VOLUME_BYTES, 0) + about)


def imagej(folder: Path) -> Path:
    about = "ImageJ=1.11a\nimages=512\nslices=512\nunit=um\nspacing=3.0\n"
    path = folder / "ct.tif"
    tifffile.imwrite(path, np.zeros(SHAPE[1:], DTYPE), description=about, metadata=None, resolution=(1 / 3, 1 / 3))
    os.truncate(path, path.stat().st_size + VOLUME_BYTES - PLANE_BYTES)
    return path


def tiff_pages(folder: Path, compression: str | None = "zlib") -> Path:
    with tifffile.TiffWriter(folder / "ct.tif", bigtiff=True) as out:
        for _ in range(SHAPE[0]):
            out.write(plane(), compression=compression, contiguous=False, metadata=None, rowsperstrip=64)
    return folder / "ct.tif"


def tiff_folder(folder: Path) -> Path:
    (folder / "slices").mkdir()
    first = folder / "slices" / "s000.tif"
    tifffile.imwrite(first, plane(), compression="zlib", metadata=None)
    for z in range(1, SHAPE[0]):
        os.link(first, first.with_name(f"s{z:03}.tif"))
    return folder / "slices"


def hdf5(folder: Path, chunks: tuple[int, int, int] = (64, 64, 64)) -> Path:
    with h5py.File(folder / "ct.h5", "w") as file:
        data = file.create_dataset("ct", SHAPE, DTYPE, chunks=chunks, compression="gzip")
        piece = zlib.compress(np.broadcast_to(plane(), (chunks[0], *SHAPE[1:]))[:, : chunks[1], : chunks[2]].tobytes())
        for corner in np.ndindex(*(n // chunk for n, chunk in zip(SHAPE, chunks, strict=True))):
            data.id.write_direct_chunk(tuple(i * n for i, n in zip(corner, chunks, strict=True)), piece)
    return folder / "ct.h5"


def hdf5_contiguous(folder: Path) -> Path:
    with h5py.File(folder / "ct.h5", "w") as file:
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        h5py.h5d.create(file.id, b"ct", h5py.h5t.STD_U16LE, h5py.h5s.create_simple(SHAPE), plist)
        file["ct"][-1, -1, -1] = 1
    return folder / "ct.h5"


def zarr_of(folder: Path, version: int, shards: tuple[int, int, int] | None = None) -> Path:
    """One file (chunk or shard) written, and linked to all others' names."""
    path = folder / "ct.zarr"
    chunks = (64, 64, 64)
    array = zarr.create_array(path, shape=SHAPE, dtype=DTYPE, chunks=chunks, shards=shards, zarr_format=version)
    extent = shards or chunks
    array[: extent[0], : extent[1], : extent[2]] = np.broadcast_to(plane()[: extent[1], : extent[2]], extent)
    first = path / array.metadata.encode_chunk_key((0, 0, 0))
    for corner in np.ndindex(*(n // size for n, size in zip(SHAPE, extent, strict=True))):
        other = path / array.metadata.encode_chunk_key(corner)
        if other != first:
            other.parent.mkdir(parents=True, exist_ok=True)
            os.link(first, other)
    return path


FORMATS: dict[str, Callable[[Path], Path]] = {
    "TIFF folder, deflate": tiff_folder,
    "BigTIFF pages, deflate": tiff_pages,
    "ImageJ TIFF, one page": imagej,
    "HDF5 contiguous": hdf5_contiguous,
    "HDF5 gzip, chunks of 64": hdf5,
    "HDF5 gzip, a plane a chunk": lambda folder: hdf5(folder, (1, 2048, 2048)),
    "Zarr 2, chunks of 64": lambda folder: zarr_of(folder, 2),
    "Zarr 3, chunks of 64": lambda folder: zarr_of(folder, 3),
    "Zarr 3, shards as ours": lambda folder: zarr_of(folder, 3, (64, 512, 512)),
    "NRRD raw": nrrd,
    "NRRD gzip (spooled)": lambda folder: nrrd(folder, "gzip"),
    "MetaImage": mha,
    "MetaImage zlib (spooled)": lambda folder: mha(folder, compressed=True),
    "NIfTI": nifti,
    "NIfTI gzip (spooled)": nifti_gzip,
    "Scanco ISQ": isq,
    "Scanco AIM": aim,
    "NumPy .npy": npy,
    "raw": raw,
}


def main(names: list[str]) -> int:
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}; uint16 {SHAPE}, 4 GiB")
    print(f"{'one plane of':30}{'peak above import, MiB':>24}{'s':>8}")
    worst, figures = 0.0, []
    for name, write in FORMATS.items():
        if names and not any(part in name for part in names):
            continue
        with tempfile.TemporaryDirectory() as folder:
            path = write(Path(folder))
            begun = time.monotonic()
            command = [sys.executable, "-c", CHILD, str(path)]
            peak = float(json.loads(subprocess.run(command, check=True, capture_output=True).stdout))
            print(f"{name:30}{peak:>24.0f}{time.monotonic() - begun:>8.1f}", flush=True)
            worst = max(worst, peak)
            value = f"{peak:.0f} MiB above import"
            figures.append(Figure(f"one plane of {name}", value, target=f"{ALLOWED_MIB} MiB"))
            shutil.rmtree(folder, ignore_errors=True)
            Path(folder).mkdir()
    print(f"largest: {worst:.0f} MiB; allowed: {ALLOWED_MIB}")
    save("read_memory", figures)
    return 0 if worst <= ALLOWED_MIB else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
