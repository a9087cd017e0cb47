"""Streaming a volume plane by plane: ours against the bare library doing the same, as a ratio of times.

python benchmarks/read_throughput.py [ROUNDS] [FORMAT ...] writes each volume (or those whose name holds FORMAT), reads
all its planes in order with both, in pairs of alternating order (default 9 rounds, after one that does not count), and
prints the median of the paired ratios.
"""

from __future__ import annotations

import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
import tifffile
import zarr
from scipy import ndimage

from _results import Figure, save
from tomostain.images.geometry import Grid
from tomostain.io.ome_zarr import create_volume
from tomostain.io.volumes import read_volume

SHAPE = (128, 1024, 1024)
SPACING_UM = (3.0, 3.0, 3.0)
WANTED = 0.8
Planes = Callable[[Path], Iterator[np.ndarray]]


def values() -> np.ndarray:
    """Smooth structure with 6 bits of noise on it: it compresses as CT does, by less than two."""
    rng = np.random.default_rng(0)
    plane = ndimage.gaussian_filter(rng.standard_normal(SHAPE[1:]), 8.0) * 20_000 + 8_000
    noise = rng.integers(0, 64, SHAPE, dtype=np.uint16)
    return plane.clip(0, 60_000).astype(np.uint16) + noise


def ours(path: Path) -> Iterator[np.ndarray]:
    volume = read_volume(path, spacing_um=SPACING_UM)
    for z in range(volume.shape[0]):
        yield volume[z]


def bare_pages(path: Path) -> Iterator[np.ndarray]:
    with tifffile.TiffFile(path) as tiff:
        for page in tiff.pages:
            yield page.asarray()


def bare_folder(path: Path) -> Iterator[np.ndarray]:
    for file in sorted(path.iterdir()):
        yield tifffile.imread(file)


def bare_hdf5(path: Path) -> Iterator[np.ndarray]:
    with h5py.File(path, "r") as file:
        data = file["ct"]
        for z in range(data.shape[0]):
            yield data[z]


def bare_zarr(path: Path) -> Iterator[np.ndarray]:
    array = zarr.open_array(path / "0", mode="r")
    for z in range(array.shape[0]):
        yield np.asarray(array[z])


def write_pages(path: Path, **settings: object) -> Path:
    with tifffile.TiffWriter(path) as out:
        for plane in values():
            out.write(plane, contiguous=False, metadata=None, **settings)
    return path


def write_folder(folder: Path) -> Path:
    (folder / "slices").mkdir()
    for z, plane in enumerate(values()):
        tifffile.imwrite(folder / "slices" / f"s{z:04}.tif", plane, metadata=None)
    return folder / "slices"


def write_hdf5(path: Path, **settings: object) -> Path:
    with h5py.File(path, "w") as file:
        file.create_dataset("ct", data=values(), **settings)
    return path


def write_zarr(path: Path) -> Path:
    with create_volume(path, Grid(SHAPE, SPACING_UM), dtype=np.uint16) as writer:
        content = values()
        for z in range(0, SHAPE[0], 64):
            writer[z : z + 64, 0 : SHAPE[1], 0 : SHAPE[2]] = content[z : z + 64]
    return path


def write_zarr_plain(path: Path) -> Path:
    root = zarr.open_group(path, mode="w", zarr_format=3)
    root.create_array("0", data=values(), chunks=(64, 64, 64), compressors=zarr.codecs.ZstdCodec(level=1))
    axes = [{"name": name, "type": "space", "unit": "micrometer"} for name in "zyx"]
    scale = [{"type": "scale", "scale": list(SPACING_UM)}]
    about = {"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": scale}]}
    root.attrs["ome"] = {"version": "0.5", "multiscales": [about]}
    return path


CASES: dict[str, tuple[Callable[[Path], Path], Planes]] = {
    "TIFF stack": (lambda folder: write_pages(folder / "a.tif"), bare_pages),
    "TIFF stack, deflate": (lambda folder: write_pages(folder / "a.tif", compression="zlib"), bare_pages),
    "TIFF folder": (write_folder, bare_folder),
    "HDF5, contiguous": (lambda folder: write_hdf5(folder / "a.h5"), bare_hdf5),
    "HDF5, gzip, a plane a chunk": (
        lambda folder: write_hdf5(folder / "a.h5", chunks=(1, *SHAPE[1:]), compression="gzip", shuffle=True),
        bare_hdf5,
    ),
    "HDF5, gzip, chunks of 64": (
        lambda folder: write_hdf5(folder / "a.h5", chunks=(64, 64, 64), compression="gzip", shuffle=True),
        bare_hdf5,
    ),
    "OME-Zarr 0.5, ours (shards)": (lambda folder: write_zarr(folder / "a.ome.zarr"), bare_zarr),
    "OME-Zarr 0.5, chunks of 64": (lambda folder: write_zarr_plain(folder / "a.ome.zarr"), bare_zarr),
}


def seconds(planes: Planes, path: Path) -> float:
    begun = time.perf_counter()
    total = 0
    for plane in planes(path):
        total += int(plane[0, 0])
    return time.perf_counter() - begun


def peak_mib() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def main(words: list[str]) -> int:
    rounds = int(words.pop(0)) if words and words[0].isdigit() else 9
    mb = np.prod(SHAPE) * 2 / 1e6
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}; {SHAPE} uint16, {mb:.0f} MB"
    )
    print(f"{'format':30}{'ours MB/s':>11}{'bare MB/s':>11}{'ratio':>8}{'least':>8}{'most':>8}{'peak MiB':>10}")
    worst, figures = float("inf"), []
    for name, (write, bare) in CASES.items():
        if words and not any(word in name for word in words):
            continue
        with tempfile.TemporaryDirectory() as folder:
            path = write(Path(folder))
            times: list[tuple[float, float]] = []
            Path("/proc/self/clear_refs").write_text("5")
            for i in range(rounds + 1):
                if i % 2:
                    mine, theirs = seconds(ours, path), seconds(bare, path)
                else:
                    theirs, mine = seconds(bare, path), seconds(ours, path)
                times.append((mine, theirs))
        ratios = sorted(theirs / mine for mine, theirs in times[1:])
        ratio = statistics.median(ratios)
        speeds = [mb / statistics.median(column) for column in zip(*times[1:], strict=True)]
        print(
            f"{name:30}{speeds[0]:>11.0f}{speeds[1]:>11.0f}{ratio:>8.2f}{ratios[0]:>8.2f}{ratios[-1]:>8.2f}"
            f"{peak_mib():>10.0f}",
            flush=True,
        )
        worst = min(worst, ratio)
        value = f"{speeds[0]:.0f} MB/s, peak {peak_mib():.0f} MiB"
        figures.append(Figure(name, value, ratio=ratio, peer="the bare library", target=f"{WANTED} x"))
    print(f"least median ratio: {worst:.2f}; wanted: {WANTED}")
    save("read_throughput", figures, note=f"{rounds} rounds")
    return 0 if worst >= WANTED else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
