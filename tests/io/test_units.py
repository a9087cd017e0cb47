"""Lengths and numbers as files write them."""

import pytest

from tomostain.io.units import UM_PER_SYMBOL, number_of, um_per


def test_every_prefix_of_the_metre_is_its_power_of_ten():
    assert UM_PER_SYMBOL["Ym"] / UM_PER_SYMBOL["ym"] == pytest.approx(1e48)
    assert UM_PER_SYMBOL["li"] == pytest.approx(25400 / 12)
    assert UM_PER_SYMBOL["µm"] == UM_PER_SYMBOL["μm"] == 1.0
    assert (UM_PER_SYMBOL["Mm"], UM_PER_SYMBOL["mm"]) == (1e12, 1e3)


@pytest.mark.parametrize(
    ("word", "um"),
    [
        *((word, 1.0) for word in ("um", "µm", "μm", "micron", "Microns", "micrometre", "\\u00B5m", b"\xc2\xb5m")),
        *((word, 25400.0) for word in ("in", "inch", "Inches")),
        ("MM", 1e3), ("Millimetres", 1e3), ("Å", 1e-4), ("nm", 1e-3), ("li", 25400 / 12), ("feet", 304800.0),
        ("pixel", None), ("", None), (None, None), ("um/px", None), ("Âµm", 1.0),
    ],
)  # fmt: skip
def test_units_in_words(word, um):
    assert um_per(word) == (None if um is None else pytest.approx(um))


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1,9960", 1.996), ("1.9960", 1.996), (" 0,4990 ", 0.499), ("-1,5e-3", -1.5e-3), (",5", 0.5), ("7", 7.0),
        (b"2,5", 2.5), (3, 3.0),
        ("1,234.5", None), ("1.234,5", None), ("1,2,3", None), ("", None), ("nan", None), ("inf", None), (None, None),
        ("1e999", None), ("1_000", None), ("eight", None), (float("nan"), None),
    ],
)  # fmt: skip
def test_a_number_is_read_with_either_decimal_sign_and_nothing_else_is(text, number):
    assert number_of(text) == number
