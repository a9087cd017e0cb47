"""The pair step: one pair, many from a table, and every bad table named by its line."""

import dataclasses
import json

import h5py
import numpy as np
import pytest
from PIL import Image

from tomostain import runs
from tomostain.images.geometry import Placement
from tomostain.images.simulated import SIMULATED
from tomostain.io.ome_zarr import create_volume
from tomostain.io.volumes import read_volume
from tomostain.io.writers.pyramidal_tiff import write_slide
from tomostain.pairs.pair import load_pair
from tomostain.pairs.table import rows_of_cohort, rows_of_table
from tomostain.steps.pair import PairRecipe, pair


@pytest.fixture
def lab(tmp_path, ct_grid, rng):
    """A folder with a CT, a slide, its placement, two aligned pictures and a mask."""
    with create_volume(tmp_path / "ct.ome.zarr", ct_grid, dtype=np.float32) as writer:
        writer[0:40, 0:70, 0:90] = rng.random(ct_grid.shape, dtype=np.float32)
    write_slide(tmp_path / "slide.tif", rng.integers(0, 256, (300, 400, 3), dtype=np.uint8), pixel_um=1.0)
    Placement((300, 400), (100.0, 0.0, 20.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)).save(tmp_path / "slide.placement.json")
    Image.fromarray(rng.integers(0, 256, (60, 80), dtype=np.uint8)).save(tmp_path / "ct.png")
    Image.fromarray(rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)).save(tmp_path / "stain.png")
    marker = np.zeros((60, 80), np.uint8)
    marker[:, :20] = 255
    Image.fromarray(marker).save(tmp_path / "mask.png")
    return tmp_path


def test_one_pair_from_volume_slide_and_placement(lab):
    recipe = PairRecipe(specimen="S1", placement=lab / "slide.placement.json", planes=3)
    out = pair(lab / "ct.ome.zarr", lab / "slide.tif", lab / "one.pair.zarr", recipe=recipe)
    made = load_pair(out)
    assert made.ct.shape == (3, 60, 80)
    assert made.mask[1:-1, 1:-1].all()
    assert runs.is_complete(out)


def test_a_grey_stain_and_a_ct_in_a_volumes_format_are_paired_and_the_grey_is_said(lab):
    ct = np.asarray(Image.open(lab / "ct.png"))
    np.save(lab / "ct.npy", ct[None])
    np.save(lab / "stain.npy", np.asarray(Image.open(lab / "stain.png"))[None, ..., 0])
    recipe = PairRecipe(specimen="rat1", aligned=True, slide_um=10.2)
    with pytest.warns(UserWarning, match=r"stain\.npy is grey, red = green = blue everywhere"):
        pair(lab / "ct.npy", lab / "stain.npy", lab / "grey.pair.zarr", recipe=recipe)
    made = load_pair(lab / "grey.pair.zarr")
    np.testing.assert_array_equal(made.ct[0], ct)
    np.testing.assert_array_equal(made.stain[..., 2], np.asarray(Image.open(lab / "stain.png"))[..., 0])


def test_aligned_images_keep_their_values_and_leave_markers_out(lab):
    recipe = PairRecipe(specimen="rat1", aligned=True, slide_um=10.2, exclude=lab / "mask.png", stain="H&E")
    made = load_pair(pair(lab / "ct.png", lab / "stain.png", lab / "jaw.pair.zarr", recipe=recipe))
    np.testing.assert_array_equal(made.ct[0], np.asarray(Image.open(lab / "ct.png")))
    np.testing.assert_array_equal(made.stain, np.asarray(Image.open(lab / "stain.png")))
    assert made.mask[:, 20:].all()
    assert not made.mask[:, :20].any()
    assert made.grid.spacing_um == (10.2, 10.2)
    assert made.stain_name == "H&E"


def unsure(lab):
    placement = Placement.load(lab / "slide.placement.json")
    noted = dataclasses.replace(placement, notes={"check": True, "probability": 0.6}, expected_tre_um=40.0)
    return noted.save(lab / "unsure.placement.json")


def test_a_placement_to_be_checked_by_eye_makes_no_pair_until_somebody_has_looked(lab):
    recipe = PairRecipe(specimen="S1", placement=unsure(lab), planes=3)
    with pytest.raises(
        ValueError,
        match=r"slide\.tif is to be checked by eye \(probability 60%, expected error 40 um\).*--checked.*--landmarks",
    ):
        pair(lab / "ct.ome.zarr", lab / "slide.tif", lab / "one.pair.zarr", recipe=recipe)
    assert not (lab / "one.pair.zarr").exists()
    looked = dataclasses.replace(recipe, checked=True)
    made = load_pair(pair(lab / "ct.ome.zarr", lab / "slide.tif", lab / "one.pair.zarr", recipe=looked))
    assert made.notes["check"] is False


def test_a_table_leaves_out_what_is_to_be_checked_by_eye_and_says_so(lab):
    unsure(lab)
    lines = ["volume,slide,specimen,name,placement,checked"]
    lines += [
        f"ct.ome.zarr,slide.tif,S1,{name},{file}.placement.json,{looked}"
        for name, file, looked in (("sure", "slide", ""), ("unsure", "unsure", ""), ("seen", "unsure", "yes"))
    ]
    (lab / "pairs.csv").write_text("\n".join(lines) + "\n")
    with pytest.warns(UserWarning, match=r"line 3: left out, the placement of slide\.tif is to be checked by eye"):
        out = pair(lab / "pairs.csv", lab / "pairs")
    assert {path.name for path in out.glob("*.pair.zarr")} == {"sure.pair.zarr", "seen.pair.zarr"}
    (lab / "pairs.csv").write_text("\n".join([lines[0], lines[2]]) + "\n")
    with pytest.warns(UserWarning, match="left out"), pytest.raises(ValueError, match="no pair is left"):
        pair(lab / "pairs.csv", lab / "none")


def test_table_makes_many_and_a_second_run_changes_nothing(lab):
    (lab / "pairs.csv").write_text(
        "volume,slide,specimen,name,placement,aligned,slide_um\n"
        "ct.ome.zarr,slide.tif,S1,a,slide.placement.json,,\n"
        "ct.png,stain.png,S2,b,,yes,10\n"
    )
    with pytest.warns(UserWarning, match=r"do not overlap with those of S1 \(.*\): S2 \("):
        out = pair(lab / "pairs.csv", lab / "pairs")
    stamps = {file: file.stat().st_mtime_ns for file in out.rglob("*") if file.is_file() and file.parent != out}
    assert {load_pair(path).specimen for path in sorted(out.glob("*.pair.zarr"))} == {"S1", "S2"}
    with pytest.warns(UserWarning, match="do not overlap"):
        pair(lab / "pairs.csv", lab / "pairs")
    assert all(file.stat().st_mtime_ns == stamp for file, stamp in stamps.items())


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("volume,slide,specimn\na,b,c\n", r"unknown column 'specimn'; did you mean 'specimen'"),
        ("volume,slide,specimen\nct.png,,S\n", r"line 2: the column slide is empty"),
        ("volume,slide,specimen,planes\nct.png,stain.png,S,two\n", r"line 2: 'two' is not a value for planes"),
        ("volume,slide,aligned,slide_um\nct.png,stain.png,yes,10\n", r"line 2: no specimen"),
        ("volume,slide,specimen,aligned\nct.png,stain.png,S,yes\n", r"line 2: .*fill in slide_um"),
        ("volume,slide,specimen\nct.ome.zarr,slide.tif,S\n", r"line 2: there is no placement"),
        ("volume,slide,specimen\nmissing.tif,slide.tif,S\n", r"line 2: there is no volume .*missing\.tif"),
        (
            "volume,slide,name,specimen\nct.png,stain.png,../../x,S\n",
            r"line 2: the pair name '../../x' begins",
        ),
        ("volume,slide,specimen\nct.png,stain.png,a/b\n", r"line 2: the specimen name 'a/b' holds '/'"),
        ("volume,slide,specimen,planes\nct.png,stain.png,S,4\n", r"line 2: planes must be an odd number"),
        ("volume,slide,specimen,slide_um\nct.png,stain.png,S,nan\n", r"line 2: slide_um must be at least 0.001"),
        ("volume,slide,specimen,slide_um\nct.png,stain.png,S,0\n", r"line 2: slide_um must be at least 0.001"),
        ("volume,slide,specimen,spacing_um\nct.png,stain.png,S,5 0 5\n", r"line 2: spacing_um must be at least 0.001"),
        ("volume,slide,specimen,spacing_um\nct.png,stain.png,S,5 5\n", r"line 2: '5 5' is not a value for spacing_um"),
        ("volume,slide,specimen\nct.png,stain.png," + "x" * 200_000 + "\n", r"line 2: the specimen name .* is longer"),
        ("slide,specimen\nstain.png,S\n", r"the column volume is missing"),
        ("volume,slide,specimen,placement\nno.tif,slide.tif,S,slide.placement.json\n", r"there is no volume .*no\.tif"),
        ("volume,slide,specimen\n", "lists no pairs"),
    ],
)
def test_bad_tables_are_named_by_line(lab, text, fault):
    (lab / "bad.csv").write_text(text)
    with pytest.raises((ValueError, FileNotFoundError), match=fault):
        pair(lab / "bad.csv", lab / "pairs")


def test_all_faults_of_all_lines_are_reported_at_once_and_nothing_is_made(lab):
    (lab / "bad.csv").write_text(
        "volume,slide,specimen,planes,aligned,slide_um\n"
        "no.tif,stain.png,S,two,,\nct.png,,,1,yes,10\nct.png,stain.png,S3,1,yes,10\n"
    )
    with pytest.raises(ValueError, match=r"^bad\.csv has 5 faults: ") as told:
        pair(lab / "bad.csv", lab / "pairs")
    faults = ("line 2: 'two' is not a value for planes", "line 2: there is no volume", "line 2: there is no placement")
    for fault in (*faults, "line 3: the column slide is empty", "line 3: no specimen"):
        assert fault in str(told.value)
    assert "line 4" not in str(told.value)
    assert not (lab / "pairs").exists()


def test_a_table_of_a_german_spreadsheet_is_read(lab):
    (lab / "pairs.csv").write_bytes(
        b'volume;slide;specimen;aligned;slide_um;comment;#\nct.png;stain.png;Ratte f\xfcr A;yes;10,2;"gut; klar";7\n'
    )
    made = load_pair(pair(lab / "pairs.csv", lab / "pairs") / "Ratte für A_stain.pair.zarr")
    assert made.grid.spacing_um == (10.2, 10.2)
    assert made.specimen == "Ratte für A"


@pytest.mark.parametrize("text", ["5", "5 5 5", "5.0,5.0,5.0", "5,0 5,0 5,0", "5 x 5 x 5", "5,0"])
def test_a_voxel_size_in_a_table_is_one_number_or_three(lab, text):
    (lab / "pairs.csv").write_text(
        f'volume,slide,specimen,placement,spacing_um\nct.ome.zarr,slide.tif,S1,slide.placement.json,"{text}"\n'
    )
    (row,) = rows_of_table(lab / "pairs.csv", PairRecipe())
    assert row.recipe.reading.spacing_um == (5.0, 5.0, 5.0)


def test_check_reads_the_table_and_writes_nothing(lab, caplog):
    (lab / "pairs.csv").write_text("volume,slide,specimen,aligned,slide_um\nct.png,stain.png,S,yes,10\n")
    before = sorted(lab.rglob("*"))
    with caplog.at_level("INFO", logger="tomostain"):
        assert pair(lab / "pairs.csv", recipe=PairRecipe(check=True)) == lab / "pairs.csv"
    assert "1 pairs of 1 specimens, no fault" in caplog.text
    assert sorted(lab.rglob("*")) == before


def test_a_cohort_s_names_and_paths_stay_inside_it(lab):
    slide = {"name": "slide_0", "slide": "S/s.tif", "placement": "S/p.json", "damage": "S/d.png"}
    for change, fault in (
        ({"name": "../../x"}, "slide name '../../x'"),
        ({"slide": "../../etc/x.tif"}, "leads out of the cohort"),
        ({"placement": "/etc/passwd"}, "leads out of the cohort"),
    ):
        specimen = {"name": "S", "ct": "S/ct.ome.zarr", "slides": [slide | change]}
        (lab / "cohort.json").write_text(json.dumps({"specimens": [specimen]}))
        with pytest.raises(ValueError, match=fault):
            pair(lab, lab / "pairs")
    assert not (lab / "pairs").exists()


def test_images_of_different_shapes_are_refused(lab, rng):
    Image.fromarray(rng.integers(0, 256, (61, 80, 3), dtype=np.uint8)).save(lab / "stain.png")
    with pytest.raises(ValueError, match=r"ct\.png is \(60, 80\), stain\.png \(61, 80\)"):
        pair(
            lab / "ct.png",
            lab / "stain.png",
            lab / "x.pair.zarr",
            recipe=PairRecipe(specimen="S", aligned=True, slide_um=1),
        )
    assert not (lab / "x.pair.zarr").exists()


def test_mask_that_masks_everything_is_refused(lab):
    Image.fromarray(np.full((60, 80), 255, np.uint8)).save(lab / "mask.png")
    recipe = PairRecipe(specimen="S", aligned=True, slide_um=1.0, exclude=lab / "mask.png")
    with pytest.raises(ValueError, match="the mask leaves no pixel"):
        pair(lab / "ct.png", lab / "stain.png", lab / "x.pair.zarr", recipe=recipe)
    assert not (lab / "x.pair.zarr").exists()


def test_a_finished_pair_is_not_written_over(lab):
    recipe = PairRecipe(specimen="S", aligned=True, slide_um=1.0)
    pair(lab / "ct.png", lab / "stain.png", lab / "x.pair.zarr", recipe=recipe)
    with pytest.raises(ValueError, match=r"x\.pair\.zarr exists"):
        pair(lab / "ct.png", lab / "stain.png", lab / "x.pair.zarr", recipe=recipe)


def test_a_table_takes_raw_values_and_data_sets_in_files(lab):
    ct = read_volume(lab / "ct.ome.zarr")[:]
    (ct * 60000).astype(np.uint16).tofile(lab / "ct.raw")
    with h5py.File(lab / "ct.h5", "w") as file:
        file["a"], file["b"] = ct, ct
        file["b"].attrs["element_size_um"] = (5.0, 5.0, 5.0)
    (lab / "pairs.csv").write_text(
        "volume,slide,specimen,name,placement,shape,dtype,spacing_um\n"
        "ct.raw,slide.tif,S1,raw,slide.placement.json,40 70 90,uint16,5 5 5\n"
        "ct.h5::/b,slide.tif,S2,hdf5,slide.placement.json,,,\n"
    )
    with pytest.warns(UserWarning, match=r"with those of S1 \(3\d\d to 5.*e\+04\): S2 \(0\.00\d+ to 0\.99"):
        out = pair(lab / "pairs.csv", lab / "pairs")
    raw, hdf5 = (load_pair(out / f"{name}.pair.zarr") for name in ("raw", "hdf5"))
    np.testing.assert_allclose(raw.ct / 60000, hdf5.ct, atol=1e-4)


def test_a_pair_says_which_of_its_images_were_simulated(lab, ct_grid, rng):
    """A table of the user's own, over files of the phantom and real ones."""
    mark = {"simulated": SIMULATED}
    with create_volume(lab / "phantom.ome.zarr", ct_grid, dtype=np.float32, attributes=mark) as writer:
        writer[0:40, 0:70, 0:90] = rng.random(ct_grid.shape, dtype=np.float32)
    rgb = rng.integers(0, 256, (300, 400, 3), dtype=np.uint8)
    write_slide(lab / "phantom.tif", rgb, pixel_um=1.0, description=SIMULATED)
    rows = [
        f"{ct}.ome.zarr,{slide}.tif,S1,{ct}_{slide},slide.placement.json"
        for ct, slide in (("ct", "slide"), ("ct", "phantom"), ("phantom", "slide"), ("phantom", "phantom"))
    ]
    (lab / "pairs.csv").write_text("volume,slide,specimen,name,placement\n" + "\n".join(rows) + "\n")
    made = [load_pair(path) for path in sorted(pair(lab / "pairs.csv", lab / "pairs").glob("*.pair.zarr"))]
    assert {one.name: one.simulated for one in made} == {
        "ct_slide": (),
        "ct_phantom": ("stain",),
        "phantom_slide": ("CT",),
        "phantom_phantom": ("CT", "stain"),
    }


def test_a_cohort_s_pairs_may_come_from_registered_placements_without_its_damage_masks(tmp_path):
    slides = [
        {"name": f"slide_{i}", "slide": f"s{i}.tif", "placement": f"p{i}.json", "damage": f"d{i}.png"} for i in range(2)
    ]
    specimen = {"name": "S0", "ct": "ct.ome.zarr", "stain_truth": "truth", "labels": "labels", "slides": slides}
    (tmp_path / "cohort.json").write_text(json.dumps({"specimens": [specimen]}))
    true = rows_of_cohort(tmp_path, PairRecipe())
    assert [(row.recipe.placement.name, row.recipe.exclude.name) for row in true] == [
        ("p0.json", "d0.png"),
        ("p1.json", "d1.png"),
    ]
    placements = tmp_path / "placements"
    placements.mkdir()
    with pytest.raises(ValueError, match=r"holds no placement of a slide .* such as S00_slide_0\.placement\.json"):
        rows_of_cohort(tmp_path, PairRecipe(placements=placements))
    (placements / "S0_slide_1.placement.json").write_text("{}")
    (row,) = rows_of_cohort(tmp_path, PairRecipe(placements=placements))
    assert (row.name, row.recipe.placement.parent, row.recipe.exclude) == ("S0_slide_1", placements, None)
    assert row.truth.stain == tmp_path / "truth"
