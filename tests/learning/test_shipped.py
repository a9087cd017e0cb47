"""The stainer that is shipped: a phantom that it has not seen is stained nearly as its perfect section is."""

import numpy as np
import pytest
import tifffile

from tomostain.io.volumes import read_volume
from tomostain.learning.stainer import Stainer, shipped, stainer_folder
from tomostain.phantom.cohort import CohortRecipe, write_cohort
from tomostain.phantom.tissues import Tissue
from tomostain.steps.stain import StainRecipe, stain

NAME = "phantom-toluidine-blue"


@pytest.fixture(scope="module")
def specimen(tmp_path_factory):
    """CT, labels and perfect stain of a specimen of Mg-10Gd."""
    folder = tmp_path_factory.mktemp("cohort")
    write_cohort(folder, CohortRecipe(specimens=1, slides=0, size=(24, 160, 160), materials=("Mg-10Gd",), seed=41))
    names = ("ct", "labels", "stain_truth")
    return {name: np.asarray(read_volume(folder / "S00" / f"{name}.ome.zarr")[:]) for name in names}


def test_it_is_small_says_what_it_has_seen_and_a_folder_of_that_name_comes_first(tmp_path, monkeypatch):
    assert NAME in shipped()
    folder = stainer_folder(NAME)
    assert sum(file.stat().st_size for file in folder.iterdir()) < 3e6
    model = Stainer.load(NAME)
    assert model.simulated == "all specimens"
    assert model.tile_exact
    assert model.anchors is not None
    monkeypatch.chdir(tmp_path)
    (tmp_path / NAME).mkdir()
    with pytest.raises(ValueError, match=r"stainer\.json is missing"):
        Stainer.load(NAME)


def test_tissues_of_an_unseen_phantom_get_their_colours(specimen):
    model, middle = Stainer.load(NAME), 12
    stained = model(specimen["ct"][middle - 3 : middle + 4].astype(np.float32)).astype(float)
    truth, labels = specimen["stain_truth"][middle].astype(float), specimen["labels"][middle]
    for tissue in (Tissue.METAL, Tissue.DEGRADATION, Tissue.LAMELLAR, Tissue.WOVEN):
        there = labels == tissue
        assert there.sum() > 100, tissue
        assert np.abs(stained[there].mean(axis=0) - truth[there].mean(axis=0)).max() < 25, tissue
    assert np.abs(stained - truth).mean() < 20


def test_an_eight_bit_window_without_units_is_stained_alike_and_the_reader_is_warned(specimen, tmp_path):
    low, high = -0.4, 3.0
    window = np.clip((specimen["ct"] - low) / (high - low) * 255, 0, 255).astype(np.uint8)
    (tmp_path / "slices").mkdir()
    for z, plane in enumerate(window):
        tifffile.imwrite(tmp_path / "slices" / f"slice_{z:04d}.tif", plane)
    recipe = StainRecipe(backend="torch", roi="12:13,:,:")
    recipe = type(recipe)(**{**vars(recipe), "reading": type(recipe.reading)(spacing_um=(5.0, 5.0, 5.0))})
    with pytest.warns(UserWarning, match=r"trained on phantoms only.*--from phantom-toluidine-blue"):
        out = stain(NAME, tmp_path / "slices", tmp_path / "out.ome.zarr", recipe=recipe)
    direct = Stainer.load(NAME)(specimen["ct"][9:16].astype(np.float32))
    assert np.abs(read_volume(out)[:][0].astype(float) - direct).mean() < 3
