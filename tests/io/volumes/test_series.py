"""Which names of files are the slices of one scan, and what is said of those that are not."""

import re

import numpy as np
import pytest
import tifffile

from tomostain.io.volumes import read_volume

UNIT = {"spacing_um": (1, 1, 1)}


def write(folder, names):
    for i, name in enumerate(names):
        tifffile.imwrite(folder / f"{name}.tif", np.full((4, 5), i, np.uint8))
    return folder


TWO = range(12)
MIXED = {
    "energy last": ([f"scan_{z:04}_{e}kV" for z in TWO for e in (40, 80)], "the number 0 stands in both scan_0000_40"),
    "energy in words": ([f"scan_{z:04}_{e}" for z in TWO for e in ("low", "high")], r"2 stems .*scan_0000_high.tif"),
    "energy first": ([f"{e}_{z:04}" for z in TWO for e in ("low", "high")], r"2 stems .*high_0000.tif \(12\)"),
    "copies": ([f"rec_{z:04}" for z in TWO] + [f"rec_{z:04} - Copy" for z in (4, 5)], r"2 stems.*rec_0004 - Copy.tif"),
    "copies on a Mac": ([f"rec_{z:04}" for z in TWO] + ["rec_0004 2"], r"2 stems .*rec_0004 2.tif \(1\)"),
    "copies in brackets": ([f"rec_{z:04}" for z in TWO] + ["rec_0004 (1)"], r"2 stems .*rec_0004 \(1\).tif \(1\)"),
    "two scans numbered": ([f"scan{s}_{z:03}" for s in (1, 2) for z in TWO], "the number 1 stands in both scan1_000"),
    "two ranges": ([f"a1_{z:03}" for z in (5, 6, 7)] + [f"a2_{z:03}" for z in (1, 2)], "the number 1 stands in both"),
    "alternating": ([f"scan_{z:04}_{40 + 40 * (z % 2)}kV" for z in TWO], "runs back from 80 to 40 between scan_0001"),
    "two widths": (["s_1", "s_01", "s_2"], "the number 1 stands in both s_"),
    "a preview": ([f"rec_{z:04}" for z in TWO] + ["preview"], r"2 stems .*preview.tif \(1\)"),
    "no numbers": (["slice"], None),
}  # fmt: skip


@pytest.mark.parametrize("names", MIXED)
def test_files_of_two_scans_or_copies_are_refused_by_name(tmp_path, names):
    files, fault = MIXED[names]
    write(tmp_path, files)
    if fault is None:
        assert read_volume(tmp_path, **UNIT).shape == (1, 4, 5)
        return
    with pytest.raises(ValueError, match=f"{re.escape(tmp_path.name)}.*{fault}"):
        read_volume(tmp_path, **UNIT)


@pytest.mark.parametrize(
    "names",
    [
        [str(z + 1) for z in range(12)],
        [f"rec{z:04}" for z in range(0, 30, 3)],
        [f"2024-05-03_scan2_{z:04}_um5" for z in range(12)],
        [f"z_{z}.{frac}" for z in range(3) for frac in (0, 5)],
        [f"s_{z:03}_{1000 - z}" for z in range(12)],
        [f"s_{z:03}_{stamp}" for z, stamp in enumerate((235958, 235959, 1, 2))],
    ],
)
def test_one_scan_is_read_in_the_order_of_its_numbers(tmp_path, names):
    write(tmp_path, names)
    assert read_volume(tmp_path, **UNIT)[:, 0, 0].tolist() == list(range(len(names)))


def test_two_kinds_of_picture_in_equal_number_are_not_chosen_between(tmp_path):
    from PIL import Image

    write(tmp_path, ["s1", "s2"])
    for z in (1, 2):
        Image.fromarray(np.zeros((4, 5), np.uint8)).save(tmp_path / f"s{z}.png")
    with pytest.raises(ValueError, match=r"holds 2 files each of \.png and \.tif; keep one kind a folder"):
        read_volume(tmp_path, **UNIT)
