"""Each backend that this machine has stays within its bounds from fp32, and stains a voxel the same in any tile."""

import copy
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from tomostain.images.tiling import tiles
from tomostain.inference.backends import BACKENDS
from tomostain.inference.bounds import BF16, FP32, INT8, bound_of
from tomostain.inference.cuda_backend import CompiledOrEager
from tomostain.inference.selftest import tiles_agree
from tomostain.inference.torch_backend import predictor_of, torch_fp32

HERE = [name for name in BACKENDS if not name.startswith("compile")]


@pytest.fixture(params=HERE)
def backend(request, model):
    found = BACKENDS[request.param]
    if not found.available(model):
        pytest.skip(f"{request.param} is not on this machine")
    return found


def test_bounds_are_those_of_the_arithmetic():
    for bound, mean, most in ((FP32, 0.005, 1), (BF16, 0.6, 5), (INT8, 5.0, 60)):
        assert 0 < bound.mean <= mean
        assert bound.mean <= bound.most <= most
    assert bound_of(2.0**-8).mean == pytest.approx(2 * bound_of(2.0**-9).mean)
    assert bound_of(0.001, layers=100).mean == pytest.approx(2 * bound_of(0.001, layers=25).mean)


def test_a_trained_network_stays_within_the_bounds(backend, model, plane):
    predict = backend.make(model, lambda: np.stack([plane[:, :96, :96], plane[:, 100:196, 120:216]]))
    expected = BACKENDS["torch"].make(model, None)(plane[None])[0]
    assert expected.astype(float).std() > 30
    off = np.abs(predict(plane[None])[0].astype(int) - expected)
    assert off.max() <= backend.bound.most
    assert off.mean() <= backend.bound.mean


@pytest.mark.parametrize("name", ["torch", "openvino", "openvino-int8"])
def test_tiles_of_any_size_give_the_same_bytes(name, model, plane):
    backend = BACKENDS[name]
    if not backend.available(model):
        pytest.skip(f"{name} is not on this machine")
    predict = backend.make(model, lambda: plane[None, :, :96, :96])
    whole = predict(plane[None])[0]
    for size in ((64, 64), (100, 239), (50, 72)):
        found = np.empty_like(whole)
        for tile in tiles(plane.shape[1:], size, halo=(model.halo_px,) * 2, align=(model.stride_px,) * 2):
            found[tile.core] = predict(plane[(None, slice(None), *tile.outer)])[0][tile.inner]
        np.testing.assert_array_equal(found, whole)
    assert tiles_agree(model, predict, plane[None])


def test_tiles_that_disagree_are_noticed(model, plane):
    predict = torch_fp32(model, None)

    def shifting(ct):
        colours = predict(ct)
        colours[:, -1, -1, 0] ^= ct.shape[-1] < plane.shape[-1]
        return colours

    assert tiles_agree(model, predict, plane[None])
    assert not tiles_agree(model, shifting, plane[None])


def in_bf16(net):
    """A copy that computes as bfloat16 units do, on any processor: values of 8 bits, sums of 24."""
    net = copy.deepcopy(net)
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.data = module.weight.data.bfloat16().float()
        if not list(module.children()):
            module.register_forward_pre_hook(lambda _, images: tuple(image.bfloat16().float() for image in images))
    return net


def test_bf16_arithmetic_stays_within_its_bound_on_any_processor(model, plane):
    expected = torch_fp32(model, None)(plane[None]).astype(int)
    off = np.abs(predictor_of(model, in_bf16(model.net))(plane[None]) - expected)
    assert 0 < off.mean() <= BF16.mean
    assert off.max() <= BF16.most


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch", "ignore:.*torch.jit:DeprecationWarning")
def test_a_compiled_network_stays_within_its_bound(model, plane):
    backend = BACKENDS["compile"]
    if not backend.available(model) or not os.environ.get("TOMOSTAIN_COMPILE"):
        pytest.skip("compiling takes half a minute: set TOMOSTAIN_COMPILE=1, as benchmarks/processors.py does")
    expected = torch_fp32(model, None)(plane[None]).astype(int)
    off = np.abs(backend.make(model, None)(plane[None]) - expected)
    assert off.max() <= backend.bound.most
    assert off.mean() <= backend.bound.mean


def test_a_compiled_network_that_fails_is_run_as_it_is(model, plane, monkeypatch):
    def broken(net, dynamic):
        def call(image):
            raise RuntimeError("Cannot find a working triton installation")

        return call

    monkeypatch.setattr(torch, "compile", broken)
    predict = predictor_of(model, CompiledOrEager(model.net))
    with pytest.warns(UserWarning, match=r"torch\.compile fails here, the network runs without it: Cannot find"):
        first = predict(plane[None])
    expected = predictor_of(model, model.net)(plane[None])
    np.testing.assert_array_equal(first, expected)
    np.testing.assert_array_equal(predict(plane[None]), expected)


def test_a_batch_is_filled_up_and_only_what_was_asked_comes_back(model, plane):
    seen = []

    def net(image):
        seen.append(len(image))
        return model.net(image)

    predict = predictor_of(model, net, batch=3)
    pair = np.stack([plane[:, :64, :64], plane[:, 64:128, 64:128]])
    found = predict(pair)
    assert seen == [3]
    np.testing.assert_array_equal(found, predictor_of(model, model.net)(np.concatenate([pair, pair[-1:]]))[:2])


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_output_that_is_not_finite_is_refused_by_every_backend(backend, model, plane, poison):
    net = copy.deepcopy(model.net)
    head = [module for module in net.modules() if isinstance(module, nn.Conv2d)][-1]
    head.bias.data[0] = poison
    net.head = nn.Sequential(*[module for module in net.head if not isinstance(module, nn.Tanh)])
    damaged = replace(model, net=net)
    if backend is BACKENDS["openvino-int8"]:
        pytest.skip("nothing can be calibrated on it")
    with pytest.raises(ValueError, match="NaN or infinite values: its weights are damaged"):
        backend.make(damaged, lambda: plane[None])(plane[None])


def test_openvino_reports_nothing_over_the_network(tmp_path):
    pytest.importorskip("openvino")
    script = """
import socket, sys
def refuse(*args, **kwargs):
    raise SystemExit("a connection was opened")
socket.socket.connect = refuse
import numpy as np, torch
from tomostain.inference.backends import BACKENDS
from tomostain.learning.nets import NetSpec, build_generator
from tomostain.learning.ranges import CTRange
from tomostain.learning.stainer import Stainer
spec = NetSpec("resnet", {"width": 4, "depth": 0})
model = Stainer(build_generator(spec, 1, 3).eval(), spec, CTRange(0.0, 1.0), "giemsa", 5.0)
for name in ("openvino", "openvino-int8"):
    if BACKENDS[name].available(model):
        tiles = np.random.rand(1, 1, 32, 32).astype(np.float32)
        BACKENDS[name].make(model, lambda: tiles)(tiles)
import pathlib
print(sorted(str(p) for p in pathlib.Path.home().rglob("*")))
"""
    environment = {**os.environ, "HOME": str(tmp_path)}
    environment.pop("CI", None)
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("limit", "allowed"),
    [("", True), ("ALL", True), ("AVX512_CORE_AMX", True), ("AVX2", False), ("AVX512_CORE", False)],
)
def test_bfloat16_is_left_out_where_onednn_is_limited_to_less(monkeypatch, model, limit, allowed):
    monkeypatch.setattr("tomostain.inference.backends.processor_flags", lambda: frozenset({"avx512_bf16"}))
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    assert BACKENDS["openvino-bf16"].available(model) is allowed
