"""Python speaks as the command line does: settings are keywords, messages name them, objects are brief."""

import inspect
from pathlib import Path

import numpy as np
import pytest

import tomostain
from tomostain import runs
from tomostain._keywords import with_keywords
from tomostain.images.geometry import Grid, Placement
from tomostain.images.image import Slide, Volume
from tomostain.io.ome_zarr import create_volume
from tomostain.learning.nets import NetSpec, build_generator
from tomostain.learning.ranges import CTRange
from tomostain.learning.stainer import Stainer
from tomostain.pairs.pair import Pair
from tomostain.pairs.recipe import PairRecipe


def given(*paths, recipe=PairRecipe()):
    """A step that returns its recipe."""
    return recipe


step = with_keywords(given)


def test_settings_are_keywords_those_of_groups_too():
    recipe = step("a", specimen="S1", spacing_um=5, exclude="mask.png", shape=[2, 3, 4], dtype="uint8")
    assert (recipe.specimen, recipe.exclude) == ("S1", Path("mask.png"))
    assert recipe.reading.spacing_um == (5, 5, 5)
    assert recipe.reading.shape == (2, 3, 4)
    assert step("a") == PairRecipe()


def test_keywords_change_single_settings_of_a_recipe():
    recipe = PairRecipe(specimen="S1", planes=3)
    assert step("a", recipe=recipe, planes=5) == PairRecipe(specimen="S1", planes=5)
    assert recipe.planes == 3


def test_one_word_for_a_list_is_a_list_of_one():
    assert tomostain.TrainRecipe(hold_out=("S01",)).hold_out == ("S01",)
    seen = {}

    def learn(pairs, *, recipe=tomostain.TrainRecipe()):
        seen["recipe"] = recipe

    with_keywords(learn)("pairs", hold_out="S01")
    assert seen["recipe"].hold_out == ("S01",)


def test_an_unknown_setting_names_the_nearest():
    with pytest.raises(TypeError, match=r"given\(\) has no setting 'spacing'; did you mean 'spacing_um'\?"):
        step("a", spacing=5)
    with pytest.raises(TypeError, match=r"register\(\) has no setting 'arround'; did you mean 'around'"):
        tomostain.register("a", "b", "c", arround=5)


def test_messages_name_settings_without_dashes_and_commands_as_they_are_typed():
    def fails(*, recipe=PairRecipe()):
        raise FileNotFoundError("pass --spacing-um z y x or --nothing; or `tomostain pair --planes 3`, with --planes")

    with pytest.raises(FileNotFoundError) as told:
        with_keywords(fails)()
    assert str(told.value) == "pass spacing_um z y x or --nothing; or `tomostain pair --planes 3`, with planes"
    with pytest.raises(ValueError, match=r"states no pixel size; pass spacing_um y x$"):
        tomostain.register("plane.png", "slide.png", "a.placement.json", slide_um=1)


@pytest.mark.parametrize("name", tomostain._STEPS)
def test_signatures_show_every_setting(name):
    function = getattr(tomostain, name)
    shown = inspect.signature(function).parameters
    assert "recipe" in shown
    assert function.__doc__
    assert len(shown) > 3


def test_recipes_and_nouns_are_at_the_top():
    for name in tomostain.__all__:
        assert getattr(tomostain, name) is not None
    assert dir(tomostain) == sorted(tomostain.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'registre'"):
        _ = tomostain.registre


def test_objects_say_briefly_what_they_are():
    zeros = np.zeros((4, 5, 6), np.uint16)
    ct = Volume(zeros, Grid((4, 5, 6), (5.0, 2.5, 2.5)), "ct.mha", about={"format": "x" * 1000})
    stained = Volume(np.zeros((4, 5, 6, 3), np.uint8), Grid((4, 5, 6), (5.0, 5.0, 5.0)), "s", stain="giemsa")
    slide = Slide(np.zeros((20, 30, 3), np.uint8), Grid((20, 30), (0.5, 0.5)), "a.svs")
    placement = Placement((20, 30), (1.0, 2.0, 3.5), (0, 1, 0), (0, 0, 1), expected_tre_um=4.4321)
    plane = np.zeros((20, 30), np.float32)
    pair = Pair(
        np.arange(600, dtype=np.float32).reshape(1, 20, 30),
        np.zeros((20, 30, 3), np.uint8),
        plane == 0,
        plane,
        Grid((20, 30), (5.0, 5.0)),
        "S1",
        "p",
    )
    spec = NetSpec("resnet", {"width": 4, "depth": 1})
    stainer = Stainer(
        build_generator(spec, 1, 3), spec, CTRange(0.0, 1.0), "giemsa", 5.0, history={"specimens": ["S1"]}
    )
    assert [repr(noun) for noun in (ct, stained, slide, placement, pair, stainer)] == [
        "<Volume ct.mha: 4 x 5 x 6 voxels of 5 x 2.5 x 2.5 um, uint16, z y x>",
        "<Volume s: 4 x 5 x 6 voxels of 5 x 5 x 5 um, giemsa, z y x>",
        "<Slide a.svs: 20 x 30 px of 0.5 x 0.5 um>",
        "<Placement of 20 x 30 px: corner at z, y, x 1, 2, 3.5 um, flat, expected error 4.43 um>",
        "<Pair p of S1: 20 x 30 px of 5 x 5 um, toluidine blue, CT planes: 1>",
        "<Stainer giemsa: resnet, 5 um, specimens trained on: 1>",
    ]


def test_nothing_about_a_call_is_kept_for_the_next(tmp_path):
    assert step("a", planes=3).planes == 3
    assert step("a").planes is None


def test_the_lines_of_the_readme_run(tmp_path, monkeypatch, rng, capsys):
    page = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")
    lines = page.partition("```python\n")[2].partition("```")[0]
    values = (2.0 * rng.random((3, 40, 50))).astype(np.float32)
    with create_volume(tmp_path / "ct.ome.zarr", Grid(values.shape, (5, 5, 5)), dtype=np.float32) as writer:
        writer[0:3, 0:40, 0:50] = values
    spec = NetSpec("resnet", {"width": 8, "depth": 1})
    model = Stainer(build_generator(spec, 1, 3).eval(), spec, CTRange(0.0, 2.0, "1/cm"), "toluidine blue", 5.0)
    with runs.output(tmp_path / "stainer", "train"):
        model.save(tmp_path / "stainer")
    monkeypatch.chdir(tmp_path)
    exec(compile(lines, "README.md", "exec"), {})
    assert "(3, 40, 50) (5.0, 5.0, 5.0)" in capsys.readouterr().out
    assert tomostain.read_volume("stained.ome.zarr")[:].shape == (3, 40, 50, 3)
