"""One plane of CT that was saved by itself: a picture, or a volume of one plane in any format."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from tomostain.images.geometry import Grid
from tomostain.images.image import Volume, filled, scaled
from tomostain.io.slides import read_grey
from tomostain.io.volumes import read_volume
from tomostain.io.volumes.options import AS_STATED, VolumeOptions

PICTURES = (".png", ".jpg", ".jpeg", ".bmp")


def read_plane(path: Path, pixel_um: tuple[float, float], options: VolumeOptions = AS_STATED) -> Volume:
    """A grey picture, or a volume of one plane, as a Volume (1, y, x) with pixels of ``pixel_um`` (y, x).

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        It cannot be read, holds colours, or more than one plane.
    """
    path, spacing_um = Path(path), (max(pixel_um), *pixel_um)
    if path.suffix.lower() in PICTURES:
        values = read_grey(path)
        plane = Volume(values[None], Grid((1, *values.shape), spacing_um), name=path.name)
        return scaled(filled(plane, options.fill), options.grey_range)
    volume = read_volume(path, **vars(dataclasses.replace(options, spacing_um=spacing_um)))
    if volume.shape[0] > 1:
        raise ValueError(
            f"{path.name} has {volume.shape[0]} planes where one is needed; save it alone, for the first: "
            f"tomostain convert {path.name} plane.tif --planes 0 1"
        )
    return volume
