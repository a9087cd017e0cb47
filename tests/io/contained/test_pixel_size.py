"""Every dialect of pixel size says the same half micrometre; screen densities say nothing."""

import pytest

from tomostain.io.contained import pixel_size

OME = """<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">
<Image ID="Image:0"><Pixels SizeX="40" SizeY="30" PhysicalSizeX="9" PhysicalSizeY="9"/></Image>
<Image ID="Image:1"><Pixels SizeX="400" SizeY="300" PhysicalSizeX="{x}" PhysicalSizeXUnit="{unit}"
 PhysicalSizeY="{x}" PhysicalSizeYUnit="{unit}"/></Image></OME>"""


@pytest.mark.parametrize(
    ("value", "unit"),
    [
        (0.5, "µm"), (0.5, "μm"), (500, "nm"), (5e-4, "mm"), (5e-5, "cm"), (5e-7, "m"), (5e-10, "km"), (5000, "Å"),
        (5e5, "pm"), (0.5 / 25400, "in"), (0.5 / 25.4, "thou"), (0.5 / 304800, "ft"), (0.5 * 72 / 25400, "pt"),
        (0.5 / 914400, "yd"), (0.5 * 12 / 25400, "li"),
    ],
)  # fmt: skip
def test_ome_size_in_any_unit_of_the_image_of_this_shape(value, unit):
    y, x, source = pixel_size.of_ome(OME.format(x=value, unit=unit), (300, 400))
    assert (y, x) == pytest.approx((0.5, 0.5))
    assert source == "OME PhysicalSizeX and Y"


def test_ome_without_a_unit_is_in_micrometres_and_pixels_are_no_unit():
    bare = '<OME><Pixels SizeX="4" SizeY="3" PhysicalSizeX="0.5"/></OME>'
    assert pixel_size.of_ome(bare, (3, 4))[:2] == (0.5, 0.5)
    assert pixel_size.of_ome(OME.format(x=0.5, unit="pixel"), (300, 400)) is None
    assert pixel_size.of_ome("<OME", (3, 4)) is None


def test_aperio_states_it_in_the_description():
    assert pixel_size.of_aperio("Aperio Image Library v11\n2220x2967|AppMag = 20|MPP = 0.4990|Left = 25")[:2] == (
        0.499,
        0.499,
    )
    assert pixel_size.of_aperio("Aperio Image Library v11|AppMag = 20") is None


@pytest.mark.parametrize(("stated", "um"), [("1,9960", 1.996), ("0,4990", 0.499), ("1,4970|Left = 25,5", 1.497)])
def test_a_decimal_comma_is_a_decimal_point(stated, um):
    assert pixel_size.of_aperio(f"Aperio Image Library v11.2.1\r\n9x9|AppMag = 5|MPP = {stated}")[:2] == (um, um)
    number = stated.partition("|")[0]
    assert pixel_size.of_ome(OME.format(x=number, unit="µm"), (300, 400))[:2] == (um, um)


@pytest.mark.parametrize(
    ("unit", "per_unit"),
    [("micron", 2.0), ("um", 2.0), ("\\u00B5m", 2.0), ("mm", 2000.0), ("inch", 50800.0), ("nm", 0.002)],
)
def test_imagej_counts_pixels_per_its_own_unit(unit, per_unit):
    assert pixel_size.of_imagej(f"ImageJ=1.54f\nunit={unit}\n", per_unit, per_unit)[:2] == pytest.approx((0.5, 0.5))
    assert pixel_size.of_imagej(f"made by hand\nunit={unit}\n", per_unit, per_unit) is None


def test_tags_count_pixels_per_inch_or_centimetre_and_nothing_without_a_unit():
    assert pixel_size.of_tags(3, 20000.0, 10000.0)[:2] == (0.5, 1.0)
    assert pixel_size.of_tags(2, 50800.0, 50800.0)[:2] == (0.5, 0.5)
    assert pixel_size.of_tags(1, 50800.0, 50800.0) is None
    assert pixel_size.of_tags(2, 0.0, 50800.0) is None


@pytest.mark.parametrize("per_inch", [72.0, 72.009, 96.0, 96.012, 300.0, 299.9994])
def test_screen_densities_are_known(per_inch):
    assert pixel_size.screen_dpi(pixel_size.of_density((per_inch, per_inch), "PNG pHYs")) == round(per_inch)


def test_a_scanners_density_is_accepted():
    assert pixel_size.screen_dpi(pixel_size.of_density((25400.0, 25400.0), "PNG pHYs")) is None
