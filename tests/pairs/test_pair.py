"""Pairs survive the disk, carry what may be believed, and refuse what cannot teach anything."""

import dataclasses
import json

import numpy as np
import pytest

from tomostain.images.geometry import Grid, Placement
from tomostain.images.image import Slide, Volume
from tomostain.pairs.pair import Pair, load_pair, make_pair, pairs_in, save_pair


@pytest.fixture
def pair(rng):
    mask = np.ones((20, 30), bool)
    mask[:3] = False
    return Pair(
        ct=rng.random((3, 20, 30), dtype=np.float32),
        stain=rng.integers(0, 256, (20, 30, 3), dtype=np.uint8),
        mask=mask,
        confidence=rng.random((20, 30), dtype=np.float32),
        grid=Grid((20, 30), (5.0, 5.0)),
        specimen="S01",
        name="S01_slide_0",
    )


def test_saved_pair_is_the_pair(tmp_path, pair):
    loaded = load_pair(save_pair(pair, tmp_path / "a.pair.zarr"))
    for name in ("ct", "stain", "mask", "confidence"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(pair, name))
    assert (loaded.grid, loaded.specimen, loaded.name, loaded.stain_name) == (
        pair.grid,
        "S01",
        "S01_slide_0",
        "toluidine blue",
    )


def test_weight_is_nothing_where_the_mask_is_not(pair):
    assert (pair.weight[:3] == 0).all()
    np.testing.assert_array_equal(pair.weight[3:], pair.confidence[3:])


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"stain": np.zeros((20, 31, 3), np.uint8)}, "must share one raster"),
        ({"mask": np.zeros((20, 30), bool)}, "the mask leaves no pixel"),
        ({"ct": np.ones((1, 20, 30), np.float32)}, "is constant"),
        ({"ct": np.full((1, 20, 30), np.nan, np.float32)}, "NaN or infinite"),
        ({"specimen": ""}, "names no specimen"),
    ],
)
def test_worthless_pairs_are_refused_by_name(pair, change, fault):
    with pytest.raises(ValueError, match=rf"S01_slide_0.*{fault}"):
        dataclasses.replace(pair, **change)


def test_unfinished_pair_is_refused(tmp_path, pair):
    path = save_pair(pair, tmp_path / "a.pair.zarr")
    (path / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group", "attributes": {}}')
    with pytest.raises(ValueError, match=r"a\.pair\.zarr is not a readable pair.*its writing was interrupted"):
        load_pair(path)


@pytest.mark.parametrize("name", ["../../x", "/x", "..", "a/b", "x\0y", "x" * 300])
@pytest.mark.parametrize("which", ["name", "specimen"])
def test_a_name_that_leads_elsewhere_is_refused_when_made_and_when_loaded(tmp_path, pair, name, which):
    with pytest.raises(ValueError, match=r"the (pair|specimen) name '.*; use letters"):
        dataclasses.replace(pair, **{which: name})
    path = save_pair(pair, tmp_path / "a.pair.zarr")
    about = json.loads((path / "zarr.json").read_text())
    about["attributes"][which] = name
    (path / "zarr.json").write_text(json.dumps(about))
    with pytest.raises(ValueError, match=r"is not a readable pair.*name '"):
        load_pair(path)


def test_a_folder_without_pairs_is_reported(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no \*\.pair\.zarr"):
        pairs_in(tmp_path)


def test_pair_shows_the_same_place_in_ct_and_stain(ct_grid):
    """Volume and slide both show a ball; in the pair the two discs coincide."""
    z, y, x = np.indices(ct_grid.shape)
    ball = ((z - 20) ** 2 + (y - 35) ** 2 + (x - 45) ** 2 < 15**2).astype(np.float32)
    volume = Volume(ball, ct_grid, "ball")
    placement = Placement((400, 500), (102.5, -20.0, 30.0), (0.0, 0.93, 0.0), (0.0, 0.0, 0.96), 5.0)
    rows, columns = np.mgrid[0:400, 0:500]
    at = placement.slide_to_volume_um(np.stack([rows, columns], axis=-1))
    index = ct_grid.index_of(at)
    disc = ((index - [20, 35, 45]) ** 2).sum(axis=-1) < 15**2
    slide = Slide(
        np.where(disc[..., None], 40, 230).astype(np.uint8).repeat(3, axis=2),
        Grid((400, 500), (1, 1)),
        "slide",
        about={"notes": ["turned by 180 degrees"]},
    )
    damage = np.zeros((400, 500), np.uint8)
    damage[:100] = 1
    pair = make_pair(volume, slide, placement, specimen="S", name="p", planes=3, exclude=damage)
    dark = pair.stain[..., 0] < 135
    bright = pair.ct[1] > 0.5
    agree = (dark & bright & pair.mask).sum() / ((dark | bright) & pair.mask).sum()
    assert agree > 0.97
    assert pair.confidence[2, 50] == 0
    assert not pair.mask[2, 50]
    assert pair.confidence[60, 50] == 1
    assert pair.notes["slide"] == ["turned by 180 degrees"]


def test_placement_of_another_slide_is_refused(ct_grid, rng):
    volume = Volume(rng.random(ct_grid.shape, dtype=np.float32), ct_grid, "ct")
    slide = Slide(np.zeros((10, 12, 3), np.uint8), Grid((10, 12), (1, 1)), "slide.tif")
    placement = Placement((400, 500), (102.5, 0, 0), (0, 1, 0), (0, 0, 1))
    with pytest.raises(ValueError, match=r"slide\.tif is 10 x 12 px but its placement was made for 400 x 500"):
        make_pair(volume, slide, placement, specimen="S", name="p")
