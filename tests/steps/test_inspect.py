"""Inspect says what a file is, where its size was found, and what to type next; for machines as JSON."""

import dataclasses
import json
import shlex

import numpy as np
import pytest
import tifffile
from PIL import Image

from tomostain import runs
from tomostain.cli import main
from tomostain.images.geometry import Grid
from tomostain.images.intensity import AROUND, BONE, METAL, SOFT
from tomostain.io.ome_zarr import create_volume
from tomostain.io.volumes import read_volume
from tomostain.io.volumes.options import VolumeOptions
from tomostain.io.writers.pyramidal_tiff import write_slide
from tomostain.pairs.pair import Pair, save_pair
from tomostain.scoring.evaluation import Evaluation
from tomostain.scoring.scores import Score
from tomostain.steps.convert import convert
from tomostain.steps.inspect import InspectRecipe, facts_of
from tomostain.steps.pair import pair as make_pairs
from tomostain.steps.phantom import PhantomRecipe, phantom


@pytest.fixture
def values(rng):
    """Air, resin, bone and a little metal, as uint16."""
    grey = np.full((12, 60, 60), 1000.0)
    grey[:, 10:50, 10:50] = 4000
    grey[:, 15:35, 15:45] = 16000
    grey[:, 40:48, 20:34] = 46000
    return (grey + rng.normal(scale=300, size=grey.shape)).clip(0).astype(np.uint16)


def test_volume_with_a_voxel_size_is_ready_to_be_used(tmp_path, values, capsys):
    with create_volume(tmp_path / "ct.ome.zarr", Grid(values.shape, (5, 5, 5)), dtype=values.dtype) as writer:
        writer[0:12, 0:60, 0:60] = values
    assert main(["inspect", str(tmp_path / "ct.ome.zarr"), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["kind"] == "CT volume"
    assert facts["shape"] == [12, 60, 60]
    assert facts["dtype"] == "uint16"
    assert facts["voxel_um"] == [5, 5, 5]
    assert facts["voxel_from"] == "the file"
    assert facts["bytes_whole"] == 12 * 60 * 60 * 2
    assert facts["bytes_plane"] == 7200
    peaks = facts["grey_values"]["peaks"]
    assert [peak["material"] for peak in peaks] == [AROUND, SOFT, BONE, METAL]
    assert [peak["value"] for peak in peaks] == pytest.approx([1000, 4000, 16000, 46000], abs=400)
    assert [command.split()[1] for command in facts["next"]] == ["register", "pair", "stain"]
    assert main(["inspect", str(tmp_path / "ct.ome.zarr")]) == 0
    text = capsys.readouterr().out
    assert "probably metal" in text
    assert "12 x 60 x 60" in text


def test_volume_without_a_voxel_size_is_reported_with_the_flag(tmp_path, values):
    tifffile.imwrite(tmp_path / "ct.tif", values, photometric="minisblack")
    facts = facts_of(tmp_path / "ct.tif")
    assert (facts["voxel_um"], facts["voxel_from"]) == (None, "not stated")
    assert facts["next"][0].endswith("ct.ome.zarr --spacing-um Z Y X")
    given = facts_of(tmp_path / "ct.tif", InspectRecipe(reading=VolumeOptions(spacing_um=(4.0, 5.0, 6.0))))
    assert given["voxel_from"] == "--spacing-um"
    assert all(command.endswith("--spacing-um 4 5 6") for command in given["next"])


def test_raw_values_are_looked_at_and_what_is_to_be_typed_next_works_as_it_stands(tmp_path, values, monkeypatch):
    monkeypatch.chdir(tmp_path)
    values.astype(">u2").tofile("my scan.dat")
    raw = InspectRecipe(reading=VolumeOptions(shape=values.shape, dtype="uint16be"))
    assert facts_of("my scan.dat", raw)["next"] == [
        "tomostain convert 'my scan.dat' 'my scan.ome.zarr' --shape 12 60 60 --dtype uint16be --spacing-um Z Y X"
    ]
    facts = facts_of("my scan.dat", InspectRecipe(reading=dataclasses.replace(raw.reading, spacing_um=(4.0, 5.0, 6.0))))
    assert main(shlex.split(facts["next"][0])[1:]) == 0
    written = read_volume("my scan.ome.zarr")
    np.testing.assert_array_equal(written[:], values)
    assert written.grid.spacing_um == (4, 5, 6)


def test_slide_tells_its_pixel_its_source_and_its_levels(tmp_path, rng):
    rgb = rng.integers(0, 256, (700, 900, 3), dtype=np.uint8)
    facts = facts_of(write_slide(tmp_path / "s.ome.tif", rgb, pixel_um=0.5, ome=True))
    assert facts["kind"] == "slide"
    assert facts["pixel_um"] == pytest.approx([0.5, 0.5])
    assert facts["pixel_from"] == "OME PhysicalSizeX and Y"
    assert [level["downsample"][0] for level in facts["levels"]] == [1, 2, 4]
    Image.fromarray(rgb).save(tmp_path / "s.png", dpi=(72, 72))
    facts = facts_of(tmp_path / "s.png")
    assert facts["pixel_um"] is None
    assert "72 dots per inch" in facts["notes"][0]
    assert facts["next"][0].endswith("--slide-um UM")


def test_pair_and_folders_that_commands_wrote_are_summed_up(tmp_path, rng, values):
    mask = np.zeros((8, 9), bool)
    mask[:4] = True
    pair = Pair(
        ct=rng.normal(size=(1, 8, 9)).astype(np.float32),
        stain=rng.integers(0, 256, (8, 9, 3), dtype=np.uint8),
        mask=mask,
        confidence=np.ones((8, 9), np.float32),
        grid=Grid((8, 9), (5, 5)),
        specimen="S01",
        name="p",
    )
    facts = facts_of(save_pair(pair, tmp_path / "p.pair.zarr"))
    assert (facts["kind"], facts["specimen"], facts["share_in_mask"]) == ("pair", "S01", 0.5)
    tifffile.imwrite(tmp_path / "ct.tif", values[0])
    (tmp_path / "cohort").mkdir()
    (tmp_path / "cohort" / "run.json").write_text(
        json.dumps({"step": "phantom", "finished": "now", "command": ["tomostain"], "inputs": [], "results": {"n": 2}})
    )
    facts = facts_of(tmp_path / "cohort")
    assert (facts["kind"], facts["results"]) == ("result of tomostain phantom", {"n": 2})


def _outline(path):
    """Kind, whether it is finished, and the commands to type next."""
    facts = facts_of(path)
    assert facts["what"]
    return facts["kind"], facts["finished"], facts["next"]


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    """A demo's folder: cohort, pairs, and what could be made of them without training."""
    home = tmp_path_factory.mktemp("demo") / "demo"
    home.mkdir()
    recipe = PhantomRecipe(specimens=2, slides=1, size=(24, 48, 48), without=("all",), seed=12)
    make_pairs(phantom(home / "cohort", recipe=recipe), home / "pairs")
    return home


def test_a_cohort_its_placements_and_its_pairs_are_known_with_the_next_command(story):
    cohort, pairs = story / "cohort", story / "pairs"
    assert _outline(cohort) == ("phantom cohort", True, [f"tomostain pair {cohort} pairs/"])
    assert _outline(pairs) == ("pairs", True, [f"tomostain train {pairs} stainer/ --hold-out S01"])
    assert facts_of(pairs)["what"] == (
        "2 pairs of 2 specimens (S00, S01), stained with toluidine blue; 2 simulated (phantom)"
    )
    placement = cohort / "S00" / "slides" / "slide_0.placement.json"
    kind, finished, following = _outline(placement)
    assert (kind, finished) == ("placement", True)
    assert following[0].startswith("tomostain pair VOLUME SLIDE slide_0.pair.zarr --placement")
    renamed = placement.with_name("elsewhere.json")
    renamed.write_text(placement.read_text())
    assert _outline(renamed)[0] == "placement"
    assert facts_of(sorted(pairs.glob("*.pair.zarr"))[0])["simulated"] == "CT, stain"
    assert facts_of(cohort / "S00" / "ct.ome.zarr")["simulated"] == "simulated by tomostain phantom"


def test_a_demo_that_is_not_finished_says_what_is_there_and_how_it_goes_on(story):
    kind, finished, following = _outline(story)
    assert (kind, finished) == ("demo", False)
    assert following == [f"tomostain demo {story}"]
    assert facts_of(story)["what"] == "finished: cohort, pairs"


def test_an_output_that_was_broken_off_is_unfinished_and_its_command_is_named(tmp_path, monkeypatch):
    out = tmp_path / "stained.ome.zarr"
    monkeypatch.setattr("sys.argv", ["/usr/bin/tomostain", "stain", "my stainer", "ct.nrrd", str(out)])

    def broken_off():
        with runs.output(out, "stain"):
            out.mkdir()
            (out / "zarr.json").write_text("{}")
            assert facts_of(out)["what"] == "unfinished stained volume: tomostain stain is writing it"
            assert facts_of(out)["next"] == []
            raise RuntimeError

    with pytest.raises(RuntimeError):
        broken_off()
    monkeypatch.setattr(runs, "is_running", lambda about: False)
    again = f"tomostain stain 'my stainer' ct.nrrd {out} --resume"
    assert _outline(out) == ("stained volume", False, [again])
    assert _outline(tmp_path / "stained.ome.zarr.unfinished") == ("stained volume", False, [again])


def test_a_training_that_was_was_interrupted_is_not_taken_for_a_stainer(tmp_path):
    (tmp_path / "stainer" / "checkpoint").mkdir(parents=True)
    kind, finished, following = _outline(tmp_path / "stainer")
    assert (kind, finished) == ("stainer", False)
    assert following == [f"tomostain train PAIRS {tmp_path / 'stainer'} --resume"]
    (tmp_path / "stainer" / "stainer.json").write_text('{"stain": "giemsa", "um_per_px": 5.0, "history": {}}')
    assert _outline(tmp_path / "stainer")[:2] == ("stainer", False)


def test_an_evaluation_and_a_report_are_known_by_their_verdict(tmp_path):
    scores = [Score(s, f"{s}_0", m, {"ssim": v}, 9) for s in "ab" for m, v in (("stainer", 0.6), ("colour table", 0.5))]
    out, about = (
        tmp_path / "evaluation",
        {"out_of_range": {"a_0": 0.0, "b_0": 0.0}, "without_contrast": {}, "learnt_range": (0, 1)},
    )
    for name in ("stainer", "pairs"):
        (tmp_path / name).mkdir()
    with runs.output(out, "evaluate", inputs=[tmp_path / "stainer", tmp_path / "pairs"]):
        out.mkdir()
        made = Evaluation.of(scores, stain="giemsa", trained_on=[], simulated=[], **about)
        made.save(out)
    assert _outline(out) == (
        "evaluation",
        True,
        [
            f"tomostain report report.html --stainer {tmp_path / 'stainer'} --evaluation {out} "
            f"--pairs {tmp_path / 'pairs'}"
        ],
    )
    assert facts_of(out)["verdict"] == made.verdict
    page = tmp_path / "report.html"
    with runs.output(page, "report") as writing:
        page.write_text("<html>")
        writing.results["verdict"] = made.verdict
    assert (_outline(page)[:2], facts_of(page)["verdict"]) == (("report", True), made.verdict)


def test_a_converted_stack_is_a_volume_though_it_has_a_record(tmp_path, values):
    with create_volume(tmp_path / "ct.ome.zarr", Grid(values.shape, (5, 5, 5)), dtype=values.dtype) as writer:
        writer[0:12, 0:60, 0:60] = values
    stack = convert(tmp_path / "ct.ome.zarr", tmp_path / "stack")
    assert facts_of(stack, InspectRecipe(reading=VolumeOptions(spacing_um=(5, 5, 5))))["shape"] == [12, 60, 60]


def test_what_is_nothing_is_one_sentence(tmp_path, capsys):
    (tmp_path / "a.xyz").write_text("?")
    assert main(["inspect", str(tmp_path / "a.xyz")]) == 1
    told = capsys.readouterr()
    assert len(told.err.strip().splitlines()) == 1
    assert "a.xyz" in told.err
