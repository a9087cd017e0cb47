"""Stained slides: what scanners, microscopes and cameras wrote, lazily, with the pixel size it states."""

from tomostain.io.slides.pictures import read_grey, read_mask, read_picture
from tomostain.io.slides.reading import SUFFIXES, is_slide, read_slide

__all__ = [
    "SUFFIXES",
    "is_slide",
    "read_grey",
    "read_mask",
    "read_picture",
    "read_slide",
]
