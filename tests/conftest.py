"""What every test may ask for: small volumes, and the folder of real images where there is one."""

import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest

from tomostain.images.geometry import Grid

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell in the background hands it down ignored
_SHARED = Path(os.environ.get("TOMOSTAIN_SHARED") or Path(__file__).resolve().parents[2] / "shared")
if (_SHARED / "lpips").is_dir():
    os.environ.setdefault("TOMOSTAIN_LPIPS", str(_SHARED / "lpips"))


@pytest.fixture
def rng():
    return np.random.default_rng(20260911)


@pytest.fixture
def ct_grid():
    return Grid((40, 70, 90), (5.0, 5.0, 5.0), (2.5, -5.0, 10.0))


@pytest.fixture(scope="session")
def shared():
    """The folder of real images and weights; tests that need it are skipped, loudly, where it is not."""
    if not (_SHARED / "data").is_dir():
        pytest.skip(f"REAL IMAGES NOT FOUND: set TOMOSTAIN_SHARED, or put them at {_SHARED}")
    return _SHARED


@pytest.fixture(autouse=True)
def what_earlier_tests_left_in_memory_does_not_count(request, monkeypatch):
    """A run counts the memory of its process; one that has run a thousand tests holds more than a user's."""
    memory = sys.modules.get("tomostain.staining.memory")
    if memory is not None and request.path.name != "test_memory.py":
        counted = memory.resident_bytes
        monkeypatch.setattr(memory, "resident_bytes", lambda processes: min(counted(processes), processes * 2**29))
