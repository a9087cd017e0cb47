"""Colour profiles (ICC): RGB of a scanner in, sRGB out, pixel by pixel."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms

MOST_BYTES = 2**24
_SRGB = ImageCms.createProfile("sRGB")
_STEPS = np.linspace(0, 255, 18).round().astype(np.uint8)
_ALIKE = 1
"""Profiles that move no colour by more than this, of 255, are sRGB, only rounded."""


class ToSrgb:
    """The profile that a file embeds, applied with its own rendering intent.

    Raises
    ------
    ValueError
        It is damaged, or not a profile of RGB.
    """

    def __init__(self, icc: bytes) -> None:
        if len(icc) > MOST_BYTES:
            raise ValueError("is too large to be one")
        try:
            profile = ImageCms.ImageCmsProfile(BytesIO(icc))
            space = profile.profile.xcolor_space.strip()
            name = " ".join(ImageCms.getProfileDescription(profile).split())
            if space != "RGB":
                raise ValueError(f"is one of {space} colours, not of RGB")
            intent = ImageCms.Intent(ImageCms.getDefaultIntent(profile))
            self._transform = ImageCms.buildTransform(profile, _SRGB, "RGB", "RGB", intent)
        except (ImageCms.PyCMSError, OSError) as error:
            raise ValueError(f"cannot be read ({' '.join(str(error).split())[:80]})") from None
        self.name = "".join(c if c.isprintable() else "?" for c in name)[:60]
        lattice = np.stack(np.meshgrid(_STEPS, _STEPS, _STEPS, indexing="ij"), axis=-1).reshape(18, -1, 3)
        moved = np.abs(self._applied(lattice).astype(int) - lattice).max()
        self.is_identity = bool(moved <= _ALIKE)

    def __call__(self, rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Colours (y, x, 3) in sRGB; they themselves where the profile is sRGB's."""
        return rgb if self.is_identity or not rgb.size else self._applied(rgb)

    def _applied(self, rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        image = Image.fromarray(np.ascontiguousarray(rgb))
        return np.asarray(ImageCms.applyTransform(image, self._transform))


def profile_of(icc: bytes | None) -> tuple[ToSrgb | None, str, list[str]]:
    """What turns a file's colours into sRGB (None: nothing to do), a description of its colours, and warnings."""
    if not icc:
        return None, "taken as sRGB, no colour profile is embedded", []
    try:
        found = ToSrgb(icc)
    except ValueError as error:
        return None, "taken as sRGB", [f"embeds a colour profile that {error}; its colours are taken as sRGB"]
    if found.is_identity:
        return None, f"sRGB by its colour profile {found.name}", []
    return found, f"converted to sRGB from its colour profile {found.name}", []
