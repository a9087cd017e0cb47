import pytest

from tomostain.io.names import checked_name


@pytest.mark.parametrize("name", ["S01", "S01_slide 3", "Ratte-12 (links)", "标本1", "v1.2", "a" * 120])
def test_a_usual_name_stays_as_it_is(name):
    assert checked_name(name, "pair") == name


@pytest.mark.parametrize(
    "name",
    ["../x", "..", ".", "a/b", "/a", "a\\b", "C:x", "a\0b", "a\nb", "", "a" * 121, "ä" * 61, ".a", "a.", " a", "nul"],
)
def test_a_name_that_is_not_one_part_of_a_path_is_refused(name):
    with pytest.raises(ValueError, match=r"the pair name .*; use letters"):
        checked_name(name, "pair")


@pytest.mark.parametrize("name", ["COM1.x", "a\u202eb", "\ud800", "a::b", "a*", 7, None, ["a"]])
def test_a_name_that_another_system_or_reader_takes_for_something_else_is_refused(name):
    with pytest.raises(ValueError, match=r"the slide name .*; use letters"):
        checked_name(name, "slide")
