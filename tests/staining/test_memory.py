"""The peak is predicted, held, and told; a tile that is small for lack of memory is not taken in silence."""

import os
import re
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch

from tomostain.images.geometry import Grid
from tomostain.inference.backends import BACKENDS
from tomostain.io.ome_zarr import create_volume
from tomostain.learning.nets import NetSpec, build_generator
from tomostain.learning.ranges import CTRange
from tomostain.learning.stainer import Stainer
from tomostain.staining.blocks import choose_cut
from tomostain.staining.memory import GIB, fit_plan, resident_bytes

SPEC = NetSpec("resnet", {"width": 32, "norm": "batch", "skips": False})


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return Stainer(build_generator(SPEC, 1, 3).eval(), SPEC, CTRange(0.0, 255.0), "giemsa", 5.0)


def fitted(model, gib):
    cut, limit = choose_cut((64, 2048, 2048)), int(gib * GIB)
    return fit_plan(cut, model, np.dtype(np.uint8), limit=limit)


@pytest.fixture
def little(model):
    """GiB that only the smallest tiles fit."""
    with pytest.raises(ValueError, match="this run needs") as told:
        fitted(model, 0.01)
    return float(re.search(r"needs (\d\.\d+) GiB", str(told.value))[1]) + 0.02


def test_more_memory_makes_halos_cheaper(model, little):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plans = [fitted(model, little + more) for more in (0.0, 0.2, 0.5, 1.0, 4.0)]
    costs = [plan.network_px() for plan, _ in plans]
    assert costs == sorted(costs, reverse=True)
    assert costs[0] > 1.5 * costs[-1]


def test_expensive_halos_are_reported_with_what_would_help(model, little):
    with pytest.warns(UserWarning, match=r"halos make this run .* times as long") as told:
        fitted(model, little)
    wanted = float(re.search(r"--memory-gib (\d+\.\d)", str(told[0].message))[1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fitted(model, wanted)


def test_too_little_is_refused_with_what_it_takes(model):
    with pytest.raises(ValueError, match=r"this run needs .* even with tiles of 64 x 64 px.*pass --memory-gib \d"):
        fitted(model, 0.1)


def test_processes_share_their_libraries():
    one, three = resident_bytes(), resident_bytes(3)
    assert one < three < 3 * one


PEAK = """
import sys
from tomostain.cli import main
status = main(sys.argv[1:])
print(open("/proc/self/status").read())
sys.exit(status)
"""
"""``ru_maxrss`` of a child begins with what its parent had when it was forked; VmHWM does not."""


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="no /proc here")
@pytest.mark.parametrize("backend", ["torch", "openvino"])
def test_the_peak_stays_below_what_was_predicted(model, backend, tmp_path, rng):
    if not BACKENDS[backend].available(model):
        pytest.skip(f"{backend} is not on this machine")
    model.save(tmp_path / "stainer")
    values = np.full((65, 512, 512), 20, np.uint8)
    values[5, 100:140, 100:140] = rng.integers(0, 255, (40, 40))
    with create_volume(tmp_path / "ct.ome.zarr", Grid(values.shape, (5, 5, 5))) as writer:
        writer[:, :, :] = values
    words = ["stain", str(tmp_path / "stainer"), str(tmp_path / "ct.ome.zarr"), str(tmp_path / "out.ome.zarr")]
    done = subprocess.run(
        [sys.executable, "-c", PEAK, *words, "--backend", backend], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    peak = int(re.search(r"VmHWM:\s+(\d+) kB", done.stdout)[1]) / 2**20
    predicted = float(re.search(r"predicted peak memory: (\d\.\d+) GiB", done.stderr)[1])
    assert 0.4 * predicted < peak < predicted
