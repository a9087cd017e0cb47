"""Readers with every fault there is, so that the harness is seen to find each."""

from __future__ import annotations

import os
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import tifffile

from fuzz.judge import Format, Look
from tomostain.images.geometry import Placement

_VALUES = np.arange(1, 61, dtype=np.uint16)


def write(folder: Path) -> Path:
    path = folder / "values.bin"
    _VALUES.tofile(path)
    return path


def strict(path: Path) -> Look:
    values = np.frombuffer(path.read_bytes(), np.uint16)
    if values.size != _VALUES.size:
        raise ValueError("not whole")
    return {"shape": values.shape, "whole": values}


def _spoilt(path: Path) -> bool:
    return path.read_bytes() != _VALUES.tobytes()


def honest(path: Path) -> Look:
    return strict(path)


def raises_of_a_library(path: Path) -> Look:
    if _spoilt(path):
        tifffile.TiffFile(path)
    return strict(path)


def names_nothing(path: Path) -> Look:
    if _spoilt(path):
        Placement.load(path.parent.parent / "other.json")
    return strict(path)


def names_the_file(path: Path) -> Look:
    if _spoilt(path):
        Placement.load(path)
    return strict(path)


def fills_with_zeros(path: Path) -> Look:
    values = np.zeros_like(_VALUES)
    raw = path.read_bytes()
    values.view(np.uint8)[: min(len(raw), values.nbytes)] = np.frombuffer(raw, np.uint8)[: values.nbytes]
    return {"shape": values.shape, "whole": values}


def fills_and_says_so(path: Path) -> Look:
    if _spoilt(path):
        warnings.warn(f"{path.name} is not whole; zeros stand in for what is missing", stacklevel=2)
    return fills_with_zeros(path)


def hangs(path: Path) -> Look:
    while _spoilt(path):
        time.sleep(1)
    return strict(path)


def dies(path: Path) -> Look:
    if _spoilt(path):
        os.abort()
    return strict(path)


def takes_two_gib(path: Path) -> Look:
    if _spoilt(path):
        np.ones(2**28)
    return strict(path)


def hides_that_it_took_two_gib(path: Path) -> Look:
    try:
        return takes_two_gib(path)
    except MemoryError:
        raise ValueError(f"{path.name} is too large") from None


def writes_beside(path: Path) -> Look:
    if _spoilt(path):
        (path.parent.parent / "hurt").touch()
    return strict(path)


def leaves_rubbish(path: Path) -> Look:
    if _spoilt(path):
        Path(tempfile.gettempdir(), "rubbish").touch()
    return strict(path)


FAULTY = {
    name: Format(write, ours, strict)
    for name, ours in {
        "honest": honest,
        "raises": raises_of_a_library,
        "names-nothing": names_nothing,
        "names-the-file": names_the_file,
        "zeros": fills_with_zeros,
        "zeros-reported": fills_and_says_so,
        "hangs": hangs,
        "dies": dies,
        "memory": takes_two_gib,
        "memory-hidden": hides_that_it_took_two_gib,
        "writes": writes_beside,
        "rubbish": leaves_rubbish,
    }.items()
}
