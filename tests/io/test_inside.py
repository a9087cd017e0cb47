"""The one rule for files that a file names."""

import pytest

from tomostain.io.inside import OutsideError, inside_folder


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "own" / "part").mkdir(parents=True)
    (tmp_path / "secret").write_text("x")
    (tmp_path / "own" / "link").symlink_to("../secret")
    (tmp_path / "own" / "part" / "up").symlink_to("..")
    (tmp_path / "own" / "values").write_text("x")
    return tmp_path / "own"


@pytest.mark.parametrize("named", ["values", "part/../values", "part/up/values", "./values"])
def test_a_file_in_the_folder_is_found(folder, named):
    assert inside_folder(folder, named, "scan.h5") == folder.resolve() / "values"


@pytest.mark.parametrize(
    "named", ["../secret", "/etc/passwd", "link", "part/up/../secret", "part/up/link", "../own/link"]
)
def test_a_file_elsewhere_is_refused_by_name(folder, named):
    with pytest.raises(OutsideError, match=rf"scan\.h5 takes its values from {named},.* outside its own folder"):
        inside_folder(folder, named, "scan.h5")


def test_names_are_relative_to_the_file_that_holds_them(folder):
    assert inside_folder(folder, "../values", "scan.h5", beside=folder / "part") == folder.resolve() / "values"


def test_a_folder_that_is_a_link_itself_may_be_named(folder, tmp_path):
    (tmp_path / "shortcut").symlink_to(folder)
    assert inside_folder(tmp_path / "shortcut", "values", "scan.h5") == folder.resolve() / "values"
