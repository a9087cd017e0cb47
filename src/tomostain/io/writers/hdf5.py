"""HDF5, laid out as NeXus has it (NXdata with axes in um) and with ilastik's ``element_size_um``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from tomostain.io.writers.target import Block, Target, Window

CHUNK_PX = (16, 256, 256)


class DatasetSink:
    """Fills a chunked data set; whole chunks at a time are compressed once."""

    slab = (CHUNK_PX[0], CHUNK_PX[1], 0)

    def __init__(self, data: Any) -> None:
        self._data = data

    def __setitem__(self, window: Window, block: Block, /) -> None:
        self._data[window] = block


@contextmanager
def hdf5(path: Path, target: Target) -> Iterator[DatasetSink]:
    """/entry/data/data, (z, y, x), gzip with shuffle in chunks of 16 x 256 x 256."""
    with h5py.File(path, "w") as file:
        file.attrs["default"] = "entry"
        entry = file.create_group("entry")
        entry.attrs.update({"NX_class": "NXentry", "default": "data"})
        group = entry.create_group("data")
        group.attrs.update({"NX_class": "NXdata", "signal": "data", "axes": ["z", "y", "x"]})
        for axis, count, edge, origin in zip(
            "zyx", target.grid.shape, target.spacing_um, target.grid.origin_um, strict=True
        ):
            steps = group.create_dataset(axis, data=origin + edge * np.arange(count))
            steps.attrs["units"] = "um"
        data = group.create_dataset(
            "data",
            shape=target.shape,
            dtype=target.dtype,
            chunks=tuple(min(n, most) for n, most in zip(target.shape, CHUNK_PX, strict=True)),
            compression="gzip",
            compression_opts=1,
            shuffle=True,
        )
        data.attrs["element_size_um"] = np.asarray(target.spacing_um)
        yield DatasetSink(data)
