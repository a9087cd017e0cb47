"""A real Aperio slide: pixels as OpenSlide decodes them, its pixel size, and what may be made of it."""

import numpy as np
import openslide
import pytest
from PIL import Image

from tomostain.io.slides import read_slide


@pytest.fixture
def svs(shared):
    return shared / "data" / "slides" / "cmu_small_region.svs"


def test_svs_gives_openslides_pixels_and_pixel_size(svs):
    slide = read_slide(svs)
    assert slide.shape == (2967, 2220, 3)
    assert slide.pixel_um == pytest.approx((0.499, 0.499))
    assert slide.about["pixel_from"] == "aperio.MPP"
    with openslide.OpenSlide(svs) as other:
        for top, left in ((0, 0), (1100, 700), (2467, 1720)):
            expected = np.asarray(other.read_region((left, top), 0, (500, 500)))[..., :3]
            np.testing.assert_array_equal(slide[top : top + 500, left : left + 500], expected)


def test_a_picture_of_stained_bone_is_a_slide_once_its_pixel_size_is_given(shared):
    path = shared / "data" / "stain" / "blue_stained_cortical_bone.png"
    with pytest.raises(ValueError, match="does not state its pixel size; pass --slide-um"):
        read_slide(path)
    slide = read_slide(path, pixel_um=0.7)
    assert (slide.shape, slide.pixel_um) == ((478, 478, 3), (0.7, 0.7))
    with Image.open(path) as other:
        np.testing.assert_array_equal(slide[:, :], np.asarray(other.convert("RGB")))
