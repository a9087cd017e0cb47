"""Whole pictures: masks, grey images in their own values, RGB."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tomostain.io.contained.client import DecodeError, look, read
from tomostain.io.first_bytes import is_tiff
from tomostain.io.slides.sections import SectionColours, is_volume_format, read_section, section_values


def read_mask(path: Path) -> npt.NDArray[np.uint8]:
    """A mask picture as (y, x) uint8, upright, 255 where set: where it is neither black nor transparent.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        The file is not a picture.
    """
    values = _values(_present(path))
    if values.ndim == 3:
        count = 1 if values.shape[2] == 2 else 3
        colours, alpha = values[..., :count].max(axis=-1), values[..., count:]
        values = colours * (alpha[..., 0] > 0) if alpha.shape[2] else colours
    return np.where(values != 0, 255, 0).astype(np.uint8)


def read_picture(path: Path) -> npt.NDArray[np.uint8]:
    """A whole PNG, JPEG, BMP or TIFF picture as (y, x, 3) uint8, upright and in sRGB, alpha composed on white.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        The file is not a picture, or holds more than 8 bits a colour.
    """
    path = _present(path)
    if is_volume_format(path):
        return SectionColours(read_section(path, 1.0))[:, :]
    try:
        kind = "tiff" if is_tiff(str(path)) else "picture"
        about = look(kind, str(path))
        if "levels" not in about:
            raise DecodeError(f"it is a slide of {about['maker']}; convert it to a plain TIFF first")
        rows, columns = about["levels"][0][:2]
        values: npt.NDArray[np.uint8] = read(kind, str(path), 0, (0, rows, 0, columns), bytes_per_px=4)
    except DecodeError as error:
        raise ValueError(f"{path.name} cannot be read as a picture: {error}") from None
    return values


def read_grey(path: Path) -> npt.NDArray[Any]:
    """A whole grey picture (TIFF, PNG, JPEG, BMP, a plane in a volume's format) as (y, x), upright, in its own values.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        The file is not a picture, or holds colours that are not grey.
    """
    path = _present(path)
    values = _values(path)
    if values.ndim == 3 and (values.shape[2] == 2 or (values[..., :3] == values[..., :1]).all()):
        values = values[..., 0]
    if values.ndim != 2:
        raise ValueError(
            f"{path.name} holds colours, red, green and blue differ; save the one channel to be read as grey"
        )
    return values


def _present(path: Path) -> Path:
    path = Path(path)
    if not path.is_file() and not (is_volume_format(path) and path.exists()):
        raise FileNotFoundError(f"there is no picture {path}")
    return path


def _values(path: Path) -> npt.NDArray[Any]:
    if is_volume_format(path):
        return section_values(path)
    try:
        about = look("values", str(path))
        rows, columns = about["shape"][:2] if len(about["shape"]) > 1 else (0, 0)
        return read("values", str(path), 0, (0, rows, 0, columns), bytes_per_px=np.dtype(about["dtype"]).itemsize * 4)
    except DecodeError as error:
        raise ValueError(f"{path.name} cannot be read as a picture: {error}") from None
