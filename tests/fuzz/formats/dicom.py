"""CT as DICOM: a series of files and a multi-frame file; written and strictly read by pydicom."""

from __future__ import annotations

import warnings
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pydicom
from pydicom.uid import ExplicitVRLittleEndian, RLELossless

from fuzz.formats.common import SHAPE, SPACING_UM, grey, volume
from fuzz.judge import Format, Look, look
from fuzz.mutations import Target

_MM = [edge / 1e3 for edge in SPACING_UM]


def _dataset(values: np.ndarray, z: int) -> pydicom.Dataset:
    ds = pydicom.Dataset()
    ds.file_meta = pydicom.dataset.FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID, ds.SOPInstanceUID, ds.Modality = "1.2.840.10008.5.1.4.1.1.2", f"1.2.3.{z}", "CT"
    ds.SeriesInstanceUID, ds.InstanceNumber, ds.PhotometricInterpretation = "1.2.3", z, "MONOCHROME2"
    ds.Rows, ds.Columns, ds.SamplesPerPixel = *values.shape[-2:], 1
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
    ds.RescaleSlope, ds.RescaleIntercept = 0.5, -1024
    ds.PixelSpacing, ds.ImageOrientationPatient = _MM[1:], [1, 0, 0, 0, 1, 0]
    ds.ImagePositionPatient = [0, 0, round(z * _MM[0], 6)]
    ds.PixelData = values.astype("<i2").tobytes()
    return ds


def write_series(folder: Path) -> Path:
    out = folder / "series"
    out.mkdir()
    for z, plane in enumerate(grey("int16")):
        _dataset(plane, z).save_as(out / f"IM{z:04}.dcm", enforce_file_format=True)
    return out


def write_run_lengths(folder: Path) -> Path:
    out = folder / "series"
    out.mkdir()
    for z, plane in enumerate(grey("int16")):
        ds = _dataset(plane, z)
        ds.compress(RLELossless, generate_instance_uid=False)
        ds.save_as(out / f"IM{z:04}.dcm", enforce_file_format=True)
    return out


def write_frames(folder: Path) -> Path:
    values = grey("int16")
    ds = _dataset(values, 0)
    ds.NumberOfFrames, ds.SpacingBetweenSlices = SHAPE[0], _MM[0]
    ds.save_as(folder / "ct.dcm", enforce_file_format=True)
    return folder / "ct.dcm"


def _whole(file: Path) -> Any:
    with warnings.catch_warnings(action="error"):
        ds = pydicom.dcmread(file)
        values = ds.pixel_array
        if ds.get("SamplesPerPixel", 1) != 1 or ds.HighBit != ds.BitsStored - 1:
            raise ValueError("no grey values")
        return ds, values


def _calibrated(ds: Any, values: np.ndarray) -> np.ndarray:
    slope, intercept = ds.get("RescaleSlope", 1), ds.get("RescaleIntercept", 0)
    if (slope, intercept) == (1, 0):
        return values
    return values.astype(np.float32) * np.float32(slope) + np.float32(intercept)


def strict_series(path: Path) -> Look:
    found = [_whole(file) for file in sorted(path.iterdir()) if file.suffix == ".dcm"]
    heights = np.array([float(ds.ImagePositionPatient[2]) for ds, _ in found])
    order = np.argsort(heights)
    first = found[order[0]][0]
    steps = np.diff(heights[order])
    alike = all(
        list(ds.get(key)) == list(first.get(key))
        for ds, _ in found
        for key in ("PixelSpacing", "ImageOrientationPatient")
    )
    if not alike or len({ds.SeriesInstanceUID for ds, _ in found}) > 1 or np.ptp(steps) > 0.25 * np.median(steps):
        raise ValueError("slices of several scans")
    planes = [_calibrated(*found[i]) for i in order]
    y, x = (float(edge) for edge in first.PixelSpacing)
    return look(np.stack(planes), (1e3 * np.ptp(heights) / (len(found) - 1), 1e3 * y, 1e3 * x))


def strict_frames(path: Path) -> Look:
    ds, values = _whole(path)
    y, x = (float(edge) for edge in ds.PixelSpacing)
    values = values if values.ndim == 3 else values[None]
    return look(_calibrated(ds, values), (1e3 * float(ds.SpacingBetweenSlices), 1e3 * y, 1e3 * x))


_SIZES = ((0x28, 0x10, 0), (0x28, 0x11, 0), (0x28, 0, 1), (0x28, 1, 1), (0x28, 2, 0), (0x28, 3, 1))
"""Rows, Columns, BitsAllocated, BitsStored, SamplesPerPixel, PixelRepresentation."""


def element(t: Target) -> None:
    """An element of the header has an absurd value: sizes, bits, numbers as text."""
    t.exact = True
    file = t.pick(file for file in t.files() if file.suffix == ".dcm")
    raw = bytearray(file.read_bytes())
    tag = t.pick([bytes((group, 0, low, high)) + b"US" for group, low, high in _SIZES])
    at = raw.find(tag) + 8
    raw[at : at + 2] = int(t.pick((0, 1, 2, 7, 12, 32, 255, 32768, 65535))).to_bytes(2, "little")
    file.write_bytes(raw)


_OWN = MappingProxyType({"element": element})
DICOM = MappingProxyType(
    {
        "dicom-series": Format(write_series, volume(), strict_series, _OWN),
        "dicom-run-lengths": Format(write_run_lengths, volume(), strict_series, _OWN),
        "dicom-frames": Format(write_frames, volume(), strict_frames, _OWN),
    }
)
