"""Small volumes with uneven sides and a voxel of 3 x 2 x 1 um (z, y, x), and how to count what is read from disk."""

from pathlib import Path

import h5py
import numpy as np
import pytest

SPACING_UM = (3.0, 2.0, 1.0)


@pytest.fixture
def values(rng):
    """Grey values that no compression shrinks much: (24, 90, 70) int16."""
    return rng.integers(-32768, 32767, (24, 90, 70)).astype(np.int16)


@pytest.fixture
def bytes_read():
    """Bytes that this process has asked files for so far."""
    counter = Path("/proc/self/io")
    if not counter.is_file():
        pytest.skip("this system does not count what a process reads")
    return lambda: int(counter.read_text().split()[1])


@pytest.fixture
def ct(rng):
    return rng.integers(0, 999, (6, 8, 9)).astype(np.uint16)


@pytest.fixture
def scan(tmp_path):
    """Write a file by what a function does to it, and give its path."""

    def make(fill, name="scan.h5"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        with h5py.File(tmp_path / name, "w") as file:
            fill(file)
        return tmp_path / name

    return make
