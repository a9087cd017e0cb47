"""What a slide is registered to: a CT volume, or one image as a volume of one plane."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tomostain.images.checking import check_ct
from tomostain.images.geometry import Grid
from tomostain.images.image import Volume
from tomostain.images.srgb import to_linear
from tomostain.io.planes import PICTURES, read_plane
from tomostain.io.slides import read_picture
from tomostain.io.volumes import read_volume
from tomostain.io.volumes.options import AS_STATED, VolumeOptions


def read_reference(path: Path, options: VolumeOptions = AS_STATED) -> Volume:
    """A CT volume, or one image as a volume of one plane; a coloured image is read as its mean optical density.

    Raises
    ------
    ValueError
        Whatever is wrong with the volume, or an image without a pixel size.
    """
    spacing_um, picture = options.spacing_um, path.suffix.lower() in PICTURES
    if not picture and (spacing_um is None or len(spacing_um) != 2):
        return check_ct(read_volume(path, **vars(options)))
    if spacing_um is None or not (len(spacing_um) == 2 or len(set(spacing_um)) == 1):
        raise ValueError(f"{path.name} is one image and states no pixel size; pass --spacing-um y x")
    y_um, x_um = spacing_um[-2:]
    try:
        plane = read_plane(path, (y_um, x_um), options)
    except ValueError as fault:
        try:
            light = to_linear(read_picture(path)).astype(np.float32)
        except ValueError:
            raise fault from None
        density = -np.log10(np.clip(light, 1e-3, 1.0)).mean(axis=2)
        plane = Volume(density[None], Grid((1, *density.shape), (max(y_um, x_um), y_um, x_um)), name=path.name)
    return check_ct(plane)
