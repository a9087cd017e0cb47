"""`tomostain phantom`: the same seed gives the same bytes, and bad settings are refused before any work."""

from __future__ import annotations

import hashlib
import json

import pytest

from tomostain import runs
from tomostain._keywords import with_keywords
from tomostain.phantom.deformation import CutRecipe
from tomostain.phantom.tomography import TomographyRecipe
from tomostain.steps import phantom as step
from tomostain.steps.phantom import PhantomRecipe, phantom

SMALL = PhantomRecipe(specimens=1, slides=1, size=(32, 64, 48), seed=11)


def _hashes(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "run.json")
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path):
    first, second = (_hashes(phantom(tmp_path / name, recipe=SMALL)) for name in ("a", "b"))
    assert len(first) > 10
    assert first == second
    other = _hashes(phantom(tmp_path / "c", recipe=PhantomRecipe(specimens=1, slides=1, size=(32, 64, 48), seed=12)))
    assert other["S00/slides/slide_0.tif"] != first["S00/slides/slide_0.tif"]
    record = runs.read_record(tmp_path / "a")
    assert record["seed"] == 11
    assert record["results"] == {"specimens": 1, "slides": 1}


def test_a_finished_cohort_and_a_strangers_folder_are_not_overwritten(tmp_path):
    finished, strangers = tmp_path / "finished", tmp_path / "photos"
    finished.mkdir()
    strangers.mkdir()
    (finished / "run.json").write_text("{}")
    (strangers / "family.jpg").touch()
    for out in (finished, strangers):
        with pytest.raises(ValueError, match="exists"):
            phantom(out, recipe=SMALL)
    assert (strangers / "family.jpg").exists()


def test_a_broken_run_is_continued(tmp_path, monkeypatch):
    def broken(out, recipe):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(step, "write_cohort", broken)
        with pytest.raises(KeyboardInterrupt):
            phantom(tmp_path / "cohort", recipe=SMALL)
    assert not runs.is_complete(tmp_path / "cohort")
    phantom(tmp_path / "cohort", recipe=SMALL)
    assert runs.is_complete(tmp_path / "cohort")
    assert not (tmp_path / "cohort.unfinished").exists()


def test_switched_off_deformation_is_off(tmp_path):
    recipe = PhantomRecipe(
        specimens=1,
        slides=1,
        size=(32, 64, 48),
        without=("all",),
        cut=CutRecipe(shrinkage=(0.0, 0.0), elastic_um=(0.0, 0.0), tilt_deg=0.0),
        tomography=TomographyRecipe(scaling="uint8"),
    )
    out = phantom(tmp_path / "cohort", recipe=recipe)
    placement = json.loads((out / "S00/slides/slide_0.placement.json").read_text())
    assert "displacement" not in placement
    assert sum(step**2 for step in placement["step_y_um"]) == pytest.approx(1.0)
    assert placement["step_y_um"][0] == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"without": ("fold",)}, "'folds'"),
        ({"thickness_um": (60.0, 10.0)}, "thickness_um"),
        ({"tilt_deg": 90.0}, "tilt_deg"),
        ({"pixel_um": 10.0}, "pixel_um"),
        ({"specimens": 0}, "specimens"),
        ({"damage": -1.0}, "damage"),
        ({"seed": -1}, "seed"),
        ({"stain": "toluidin blue"}, "toluidine blue"),
        ({"size": (0, 64, 64)}, "size must be at least 1"),
        ({"energy_kev": 0.0}, "energy_kev"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_written(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        with_keywords(phantom)(tmp_path / "cohort", **settings)
    assert not (tmp_path / "cohort").exists()
