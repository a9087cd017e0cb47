"""`table` writes a table that register and pair take once it is filled in, and guesses nothing in silence."""

import csv

import numpy as np
import pytest
import tifffile
from PIL import Image

from tomostain import read_volume, runs
from tomostain.cli import main
from tomostain.io.volumes.options import VolumeOptions
from tomostain.pairs.first_table import Found, match
from tomostain.pairs.recipe import PairRecipe
from tomostain.pairs.table import rows_of_table
from tomostain.steps.register import RegisterRecipe, register
from tomostain.steps.table import table

VOLUME = np.random.default_rng(0).integers(0, 60000, (10, 40, 50)).astype(np.uint16)
PICTURE = np.random.default_rng(1).integers(0, 255, (40, 50, 3)).astype(np.uint8)


@pytest.fixture
def lab(tmp_path):
    """A folder of slices without voxel size, an ImageJ stack with one, three slides, and files that are neither."""
    home = tmp_path / "lab"
    (home / "rat01" / "ct").mkdir(parents=True)
    (home / "slides").mkdir()
    for number, plane in enumerate(VOLUME):
        tifffile.imwrite(home / "rat01" / "ct" / f"rec_{number:03}.tif", plane)
    tifffile.imwrite(
        home / "rat02_ct.tif",
        VOLUME,
        imagej=True,
        resolution=(0.2, 0.2),
        metadata={"unit": "um", "spacing": 5.0, "axes": "ZYX"},
    )
    tifffile.imwrite(
        home / "slides" / "rat1_a.tif",
        PICTURE,
        photometric="rgb",
        resolution=(10000, 10000),
        resolutionunit="CENTIMETER",
    )
    Image.fromarray(PICTURE).save(home / "slides" / "rat02_a.png")
    Image.fromarray(PICTURE).save(home / "slides" / "other.jpg")
    Image.fromarray(PICTURE[..., 0]).save(home / "slides" / "rat02_a_mask.png")
    (home / "notes.docx").write_bytes(b"word")
    return home


def lines(path):
    with path.open(newline="") as file:
        return {line["slide"]: line for line in csv.DictReader(file)}


def test_slides_are_matched_by_name_and_what_is_not_known_is_empty_with_a_note(lab, capsys):
    assert main(["table", str(lab)]) == 0
    found = lines(lab / "table.csv")
    first, second, third = (found[f"slides/{name}"] for name in ("rat1_a.tif", "rat02_a.png", "other.jpg"))
    assert [first[key] for key in ("volume", "specimen", "name", "stain")] == [
        "rat01/ct",
        "rat01",
        "rat1_a",
        "toluidine blue",
    ]
    assert "fill in spacing_um" in first["#note"]
    assert "slide_um" not in first["#note"]
    assert (second["volume"], second["specimen"]) == ("rat02_ct.tif", "rat02")
    assert "slide: fill in slide_um" in second["#note"]
    assert "volume:" not in second["#note"]
    assert "spacing_um" not in second["#note"]
    assert (third["volume"], third["specimen"]) == ("", "")
    assert "no volume shares a word of its name: fill in volume and specimen" in third["#note"]
    assert len(found) == 3
    said = capsys.readouterr().err
    assert "2 volumes and 3 slides; 3 of 3 lines need something filled in" in said
    assert "not in the table: notes.docx, rat02_a_mask.png" in said


def test_the_table_is_accepted_once_its_cells_are_filled_in(lab, capsys):
    path = table(lab)
    assert runs.read_record(path)["results"] == {"volumes": 2, "slides": 3, "lines_to_fill_in": 3}
    with pytest.raises(ValueError, match="the column volume is empty"):
        register(path, recipe=RegisterRecipe(check=True))
    path.write_text(path.read_text().replace(",slides/other.jpg,,", "rat02_ct.tif,slides/other.jpg,rat02,"))
    assert main(["register", str(path), "--check"]) == 1
    said = capsys.readouterr().err
    assert "table.csv has 3 faults: " in said
    assert "line 3: ct has no voxel size; fill in spacing_um z y x" in said
    assert "line 4: rat02_a.png does not state its pixel size; fill in slide_um" in said
    assert main(["register", str(path), "--check", "--slide-um", "1", "--spacing-um", "5"]) == 0
    assert main(["pair", str(path), "--check", "--aligned", "--slide-um", "1"]) == 0
    assert [one.name for one in lab.parent.iterdir()] == ["lab"]


def test_a_table_is_never_overwritten_and_an_empty_folder_is_refused(lab, tmp_path):
    table(lab)
    with pytest.raises(ValueError, match="exists"):
        table(lab)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no volume and no slide"):
        table(tmp_path / "empty")
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        table(tmp_path / "none")


def test_slides_of_one_name_in_two_folders_get_names_of_their_own(tmp_path):
    tifffile.imwrite(tmp_path / "ct.tif", VOLUME, imagej=True, metadata={"axes": "ZYX"})
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        Image.fromarray(PICTURE).save(tmp_path / folder / "slide.png")
    found = lines(table(tmp_path))
    assert {line["name"] for line in found.values()} == {"a_slide", "b_slide"}
    assert all("the only volume; fill in specimen" in line["#note"] for line in found.values())


@pytest.mark.parametrize(
    ("slide", "volume", "specimen"),
    [
        ("rat_01_7", "rat_01", "rat_01"),
        ("RAT-1 left", "rat_01", "rat_01"),
        ("rat_12_1", "rat_12", "rat_12"),
        ("rat_3", None, ""),
        ("mouse_1_12", None, ""),
    ],
)
def test_a_slide_belongs_to_the_one_volume_that_shares_most_of_its_name(slide, volume, specimen, tmp_path):
    def found(name):
        return Found(tmp_path / name, tuple(name.replace("-", " ").replace("_", " ").split()))

    chosen, of, _ = match(found(slide), [found("rat_01"), found("rat_12"), found("rat_20")])
    assert (None if chosen is None else chosen.path.name, of) == (volume, specimen)


def test_integers_beside_other_values_need_a_grey_range_that_brings_them_to_the_same_units(tmp_path):
    scan = np.linspace(-1, 3, VOLUME.size).reshape(VOLUME.shape).astype(np.float32)
    stored = np.round((scan + 1) / 4 * 65535).astype(np.uint16)
    for name, values in (("rat01.tif", scan), ("rat02.tif", stored)):
        metadata = {"axes": "ZYX", "unit": "um", "spacing": 5.0}
        tifffile.imwrite(tmp_path / name, values, imagej=True, resolution=(0.2, 0.2), metadata=metadata)
        Image.fromarray(PICTURE).save(tmp_path / name.replace(".tif", "_a.png"))
    found = lines(table(tmp_path))
    assert "grey_range" not in found["rat01_a.png"]["#note"]
    assert "uint16 values beside other types, fill in grey_range" in found["rat02_a.png"]["#note"]
    path = tmp_path / "table.csv"
    head = path.read_text().splitlines()[0].split(",")
    cells = {"volume": "rat02.tif", "slide": "rat02_a.png", "slide_um": "1", "grey_range": "-1 3"}
    path.write_text(",".join(head) + "\n" + ",".join(cells.get(column, "") for column in head))
    assert register(path, recipe=RegisterRecipe(check=True)) == path
    (row,) = rows_of_table(path, PairRecipe(), placed=False)
    same = read_volume(row.volume, **vars(row.recipe.reading))
    assert same.dtype == np.float32
    np.testing.assert_allclose(same[:], scan, atol=4 / 65535)
    with pytest.raises(ValueError, match=r"rat01.tif holds float32; --grey-range is for CT"):
        read_volume(tmp_path / "rat01.tif", grey_range=(0, 1))
    with pytest.raises(ValueError, match="a smaller and a larger value"):
        VolumeOptions(grey_range=(3, -1))
