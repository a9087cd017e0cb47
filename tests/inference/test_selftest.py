"""The self-test takes the fastest backend within its bounds, and times all that a run does with a tile."""

import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from tomostain.inference import selftest
from tomostain.inference.backends import BACKENDS
from tomostain.inference.bounds import BF16
from tomostain.inference.selftest import Sample, choose_backend
from tomostain.inference.torch_backend import torch_fp32
from tomostain.learning.nets import NetSpec, build_generator
from tomostain.learning.ranges import CTRange
from tomostain.learning.stainer import Stainer


def no_calibration():
    raise AssertionError("nothing here is calibrated")


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(1)
    spec = NetSpec("resnet", {"width": 8, "depth": 0})
    net = build_generator(spec, 1, 3).eval().requires_grad_(False).to(memory_format=torch.channels_last)
    return Stainer(net, spec, CTRange(0.0, 2.5), "giemsa", 5.0)


@pytest.fixture
def sample(plane):
    tiles = np.stack([plane[:, :96, :96], plane[:, 100:196, 120:216]])
    return lambda backend: Sample(tiles, 64 * 64, 1e9)


@pytest.fixture
def table(monkeypatch):
    """Replace the table of backends: name -> (change of the reference's colours, bound)."""

    def set_backends(**made):
        def make(change):
            def maker(model, calibration):
                predict = torch_fp32(model, calibration)
                return lambda ct: change(predict(ct), ct)

            return maker

        found = {
            name.replace("_", "-"): replace(
                BACKENDS["openvino"], make=make(change), bound=bound, available=lambda _: True
            )
            for name, (change, bound) in made.items()
        }
        monkeypatch.setattr(selftest, "BACKENDS", {"torch": BACKENDS["torch"], **found})

    return set_backends


def off_by(count):
    def change(colours, ct):
        return np.where(colours > 127, colours - count, colours + count).astype(np.uint8)

    return change


def sometimes(count):
    """One value of each tile is off by ``count``."""

    def change(colours, ct):
        colours = colours.copy()
        value = int(colours[0, 0, 0, 0])
        colours[:, 0, 0, 0] = value - count if value > 127 else value + count
        return colours

    return change


def test_a_short_run_is_not_worth_a_self_test(model, sample):
    tiles = sample(None)
    name, trials = choose_backend(model, lambda backend: replace(tiles, in_run=1.0), no_calibration)
    assert name == "torch"
    assert [trial.name for trial in trials] == ["torch"]


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (off_by(3), "its bounds are 0.5"),
        (sometimes(BF16.most + 1), "its bounds are 0.5"),
        (lambda colours, ct: colours ^ (ct.shape[-1] < 96), "another colour in another tile"),
        (lambda colours, ct: 1 / 0, "cannot be used here: division by zero"),
    ],
)
def test_what_breaks_a_bound_or_disagrees_with_itself_is_not_taken(model, sample, table, change, fault):
    table(faulty=(change, BF16))
    name, trials = choose_backend(model, sample, no_calibration)
    assert name == "torch"
    assert fault in str(trials[1])
    with pytest.raises(ValueError, match=r"backend faulty: .*; take another with --backend"):
        choose_backend(model, sample, no_calibration, wanted="faulty")


def test_more_than_one_count_is_taken_only_by_name(model, sample, table):
    table(near=(sometimes(1), BF16), far=(sometimes(2), BF16))
    _, trials = choose_backend(model, sample, no_calibration)
    assert [trial.most for trial in trials] == [0, 1, 2]
    assert [bool(trial.fault) for trial in trials] == [False, False, True]
    assert "taken only when it is named" in str(trials[2])
    assert choose_backend(model, sample, no_calibration, wanted="far")[0] == "far"


def test_what_is_taken_by_name_only_is_not_tried(model, sample, table, monkeypatch):
    table(near=(sometimes(1), BF16))
    named = {name: replace(backend, by_name_only=name == "near") for name, backend in selftest.BACKENDS.items()}
    monkeypatch.setattr(selftest, "BACKENDS", named)
    assert [trial.name for trial in choose_backend(model, sample, no_calibration)[1]] == ["torch"]
    assert choose_backend(model, sample, no_calibration, wanted="near")[0] == "near"
    assert [name for name, backend in BACKENDS.items() if backend.by_name_only] == ["openvino-int8"]


def test_the_fastest_end_to_end_is_taken(model, sample, table, monkeypatch):
    def slow(colours, ct):
        time.sleep(0.3)
        return colours

    table(slow=(slow, BF16), same=(lambda colours, ct: colours, BF16))
    name, trials = choose_backend(model, sample, no_calibration)
    speed = {trial.name: trial.mpx_per_s for trial in trials}
    assert speed["slow"] <= 64 * 64 / 0.3 / 1e6
    assert name == max(("torch", "same"), key=lambda n: speed[n])


def test_time_counts_preparing_and_conversion_and_only_pixels_without_halo(model, sample, monkeypatch):
    prepared = type(model).prepared

    def slow(self, ct):
        time.sleep(0.2)
        return prepared(self, ct)

    monkeypatch.setattr(type(model), "prepared", slow)
    (trial,) = choose_backend(model, sample, no_calibration, wanted="torch")[1]
    assert trial.mpx_per_s <= 64 * 64 / 0.2 / 1e6
