"""Small volumes with uneven sides and a voxel of 3 x 2 x 1 um (z, y, x), and how to count what is read from disk."""

from pathlib import Path

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
