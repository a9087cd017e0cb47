"""In a real napari under Xvfb the plugin's layers are shown, and the widget blends them."""

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("napari", reason="NO NAPARI: pip install 'tomostain[napari]'")
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def screen():
    """A display: the one there is, or Xvfb."""
    if os.environ.get("DISPLAY"):
        yield
        return
    if not shutil.which("Xvfb"):
        pytest.skip("NO DISPLAY AND NO XVFB: apt-get install xvfb libxcb-icccm4 libxcb-keysyms1")
    reading, writing = os.pipe()
    words = ["Xvfb", "-displayfd", str(writing), "-screen", "0", "1280x960x24", "-nolisten", "tcp"]
    process = subprocess.Popen(words, pass_fds=[writing], stderr=subprocess.DEVNULL)
    os.environ["DISPLAY"] = f":{os.read(reading, 8).decode().strip()}"
    yield
    process.terminate()
    process.wait()
    del os.environ["DISPLAY"]


@pytest.fixture
def viewer(screen):
    import napari
    import npe2

    manager = npe2.PluginManager.instance()
    if "tomostain" not in manager:
        import tomostain.viewing

        manifest = Path(tomostain.viewing.__file__).with_name("napari.yaml")
        manager.register(npe2.PluginManifest.from_file(manifest))
    viewer = napari.Viewer(show=True)
    yield viewer
    viewer.close()


def test_ct_stain_and_placement_are_dropped_and_lie_on_each_other(viewer, specimen):
    for name in ("ct.ome.zarr", "stained.ome.zarr", "slide.placement.json"):
        viewer.open(str(specimen / name), plugin="tomostain")
    names = [layer.name for layer in viewer.layers]
    assert names == ["ct", "stained", "slide slide", "section slide"]
    stain = viewer.layers["stained"]
    assert (stain.rgb, stain.multiscale, stain.ndim) == (True, True, 3)
    at_um = np.array([2.5 + 11 * 5, -5.0 + 20 * 5, 10.0 + 30 * 5])
    viewer.dims.set_point([0, 1, 2], at_um)
    assert np.allclose(stain.world_to_data(at_um), [11, 20, 30])
    viewer.dims.ndisplay = 3
    from qtpy.QtWidgets import QApplication

    QApplication.processEvents()
    picture = viewer.screenshot(canvas_only=True, flash=False)
    assert picture[..., :3].std() > 5


def test_the_widget_blends_stain_over_ct_and_puts_them_side_by_side(viewer, specimen):
    for name in ("ct.ome.zarr", "stained.ome.zarr", "slide.placement.json"):
        viewer.open(str(specimen / name), plugin="tomostain")
    _, panel = viewer.window.add_plugin_dock_widget("tomostain", "Compare CT and stain")
    widget = getattr(panel, "_magic_widget", panel)
    ct, stain, share, beside = widget[0], widget[1], widget[2], widget[3]
    assert (ct.value.name, stain.value.name) == ("ct", "stained")
    share.value = 0.25
    assert viewer.layers["stained"].opacity == pytest.approx(0.25)
    beside.value = True
    assert viewer.grid.enabled
    assert viewer.layers["stained"].opacity == 1.0
    beside.value = False
    assert not viewer.grid.enabled
    assert viewer.layers["stained"].opacity == pytest.approx(0.25)


def test_the_sample_is_made_once_and_kept(viewer, tmp_path, monkeypatch):
    import dataclasses

    from tomostain.viewing import napari_plugin

    monkeypatch.setattr(napari_plugin, "sample_folder", lambda: tmp_path / "sample")
    small = dataclasses.replace(napari_plugin._SAMPLE, size=(16, 40, 40))
    monkeypatch.setattr(napari_plugin, "_SAMPLE", small)
    viewer.open_sample("tomostain", "phantom")
    assert [layer.name for layer in viewer.layers][:2] == ["ct", "stain_truth"]
    written = (tmp_path / "sample" / "run.json").stat().st_mtime_ns
    viewer.open_sample("tomostain", "phantom")
    assert (tmp_path / "sample" / "run.json").stat().st_mtime_ns == written
