"""Scanco files: two that ITKIOScanco wrote, the older layout and run lengths by the published description."""

import struct
from pathlib import Path

import numpy as np
import pytest

from tomostain.io.volumes import read_volume

DATA = Path(__file__).with_name("data")
SHAPE = (4, 5, 6)


def expected():
    """The volume that was handed to ITKIOScanco 1.0.1, with voxels of 30 x 20 x 10 um."""
    return np.random.default_rng(7).integers(-2000, 9000, SHAPE).astype(np.int16)


def vax(value):
    raw = struct.pack("<f", value * 4)
    return raw[2:] + raw[:2]


def aim_v020(kind, payload, log=b"! Log\nMu_Scaling                    4096\n"):
    numbers = struct.pack("<24i", 1, 2, 3, *SHAPE[::-1], *(0,) * 18)[:84]
    body = struct.pack("<5i", 16, 0, 0, 0, 0) + struct.pack("<i", kind) + numbers
    body += b"".join(vax(edge) for edge in (0.010, 0.020, 0.030)) + bytes(20)
    return struct.pack("<5i", 20, len(body), len(log), len(payload), 0) + body + log + payload


@pytest.mark.parametrize("name", ["itk_ioscanco.isq", "itk_ioscanco.aim"])
def test_files_of_itk_are_read(name):
    volume = read_volume(DATA / name)
    np.testing.assert_array_equal(volume[:], expected())
    assert volume.grid.spacing_um == (30.0, 20.0, 10.0)


def test_isq_comes_in_inverse_centimetres_by_its_mu_scaling(tmp_path):
    raw = bytearray((DATA / "itk_ioscanco.isq").read_bytes())
    struct.pack_into("<i", raw, 88, 4096)
    (tmp_path / "C0001234.ISQ;1").write_bytes(raw)
    volume = read_volume(tmp_path / "C0001234.ISQ;1")
    assert volume.dtype == np.float32
    assert volume.about["units"] == "1/cm"
    np.testing.assert_allclose(volume[2, 1:3], expected()[2, 1:3] / 4096, rtol=1e-6)


def test_aim_v020_has_vax_floats_and_is_calibrated(tmp_path):
    (tmp_path / "a.AIM").write_bytes(aim_v020(0x00020002, expected().tobytes()))
    volume = read_volume(tmp_path / "a.AIM")
    assert volume.grid.spacing_um == (30.0, 20.0, 10.0)
    assert volume.grid.origin_um == (90.0, 40.0, 10.0)
    np.testing.assert_allclose(volume[:], expected() / 4096, rtol=1e-6)


def test_run_lengths_of_bytes_are_unrolled(tmp_path):
    values = np.repeat([0, 127, 5], [50, 40, 30]).reshape(SHAPE)
    runs = bytes([50, 0, 40, 127, 30, 5])
    (tmp_path / "seg.aim").write_bytes(aim_v020(0x00080002, struct.pack("<i", len(runs) + 4) + runs))
    np.testing.assert_array_equal(read_volume(tmp_path / "seg.aim")[:], values)


def test_binary_run_lengths_go_on_after_255(tmp_path):
    values = np.repeat([0, 127], [20, 100]).reshape(SHAPE)
    runs = bytes([0, 127, 20, 60, 0, 40])
    (tmp_path / "seg.aim").write_bytes(aim_v020(0x00150001, struct.pack("<i", len(runs) + 4) + runs))
    np.testing.assert_array_equal(read_volume(tmp_path / "seg.aim")[:], values)


@pytest.mark.parametrize(
    ("kind", "payload", "fault"),
    [
        (0x00020002, b"\0" * 10, r"ends 230 bytes too early"),
        (0x00999999, b"", r"type 0x00999999"),
        (0x00080002, struct.pack("<i", 8) + bytes([50, 0, 40, 1]), r"ends 30 bytes too early"),
        (0x00080002, struct.pack("<i", 2**31 - 1), r"states 2147483643 compressed bytes"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path, kind, payload, fault):
    (tmp_path / "a.aim").write_bytes(aim_v020(kind, payload))
    with pytest.raises(ValueError, match=rf"a\.aim.*{fault}"):
        read_volume(tmp_path / "a.aim")[:]


@pytest.mark.parametrize(
    ("at", "number", "fault"),
    [(44, 0, "three positive sizes"), (52, 2**30, "bytes too early"), (64, 0, "radiograph"), (508, -9, "too early")],
)
def test_isq_headers_that_lie_are_refused(tmp_path, at, number, fault):
    raw = bytearray((DATA / "itk_ioscanco.isq").read_bytes())
    struct.pack_into("<i", raw, at, number)
    (tmp_path / "a.isq").write_bytes(raw)
    with pytest.raises(ValueError, match=rf"a\.isq.*{fault}"):
        read_volume(tmp_path / "a.isq")
