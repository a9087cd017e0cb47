"""Whole pictures: masks, grey images in their own values, RGB."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tomostain.io.contained.client import DecodeError, look, read


def read_mask(path: Path) -> npt.NDArray[np.uint8]:
    """A mask picture as (y, x) uint8, 255 where set: where the strongest channel is not zero.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        The file is not a picture.
    """
    values = _values(_present(path))
    if values.ndim == 3:
        values = values[..., : 1 if values.shape[2] == 2 else 3].max(axis=-1)
    return np.where(values != 0, 255, 0).astype(np.uint8)


def read_picture(path: Path) -> npt.NDArray[np.uint8]:
    """A whole PNG, JPEG or plain TIFF picture as (y, x, 3) uint8 RGB, alpha composed on white.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        The file is not a picture, or holds more than 8 bits a colour.
    """
    path = _present(path)
    try:
        rows, columns = look("picture", str(path))["levels"][0][:2]
        values: npt.NDArray[np.uint8] = read("picture", str(path), 0, (0, rows, 0, columns), bytes_per_px=4)
    except DecodeError as error:
        raise ValueError(f"{path.name} cannot be read as a picture: {error}") from None
    return values


def read_grey(path: Path) -> npt.NDArray[Any]:
    """A whole grey picture (8, 16 or 32 bit TIFF; 8 or 16 bit PNG) as (y, x) in its own values.

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
        raise ValueError(f"{path.name} is {values.shape}, not one grey plane")
    return values


def _present(path: Path) -> Path:
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no picture {path}")
    return path


def _values(path: Path) -> npt.NDArray[Any]:
    try:
        about = look("values", str(path))
        rows, columns = about["shape"][:2] if len(about["shape"]) > 1 else (0, 0)
        return read("values", str(path), 0, (0, rows, 0, columns), bytes_per_px=np.dtype(about["dtype"]).itemsize * 4)
    except DecodeError as error:
        raise ValueError(f"{path.name} cannot be read as a picture: {error}") from None
