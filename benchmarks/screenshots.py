"""Make the pictures of docs/viewing.md from a phantom: python benchmarks/screenshots.py COHORT [OUT].

COHORT is what `tomostain phantom COHORT --specimens 1 --slides 2 --size 64 192 192 --seed 3` writes; its perfect stain
stands for a stained volume. OUT is docs/images. Chromium is needed; napari's picture is left out where it is missing.
"""

from __future__ import annotations

import io
import shutil
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from playwright.sync_api import Page, sync_playwright

import tomostain
from tomostain.images.geometry import Placement
from tomostain.viewing.landmarks import LandmarkPage
from tomostain.viewing.page import study_site
from tomostain.viewing.sections import load_section
from tomostain.viewing.server import serve
from tomostain.viewing.state import Study
from tomostain.viewing.stores import open_store

FLAGS = ["--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--no-sandbox", "--disable-dev-shm-usage"]
SIZE = {"width": 1200, "height": 700}
READY = """async () => {
  const frame = () => new Promise((next) => requestAnimationFrame(next));
  for (let i = 0; i < 30; i++) await frame();
  while (!viewer.isReady()) await frame();
}"""


def main(cohort: Path, out: Path) -> int:
    specimen = cohort / "S00"
    placements = sorted((specimen / "slides").glob("*.placement.json"))
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        page = browser.new_page(viewport=SIZE)
        neuroglancer(page, specimen, placements, out)
        landmark_page(browser.new_page(viewport=SIZE), specimen, placements[0], out)
        browser.close()
    if find_spec("napari"):
        napari_window(specimen, placements[0], out)
    else:
        print("no napari here: its picture is left as it is")
    return 0


def neuroglancer(page: Page, specimen: Path, placements: list[Path], out: Path) -> None:
    ct, stained = (
        open_store(specimen / "ct.ome.zarr", colours=False),
        open_store(specimen / "stain_truth.ome.zarr", colours=True),
    )
    sections = tuple(load_section(path, ct, stained) for path in placements)
    study = Study("phantom (simulated)", stained, ct, {}, sections)
    with tempfile.TemporaryDirectory() as folder, serve(study_site(study, Path(folder))) as running:
        page.goto(running.address)
        page.wait_for_selector(".neuroglancer-rendered-data-panel")
        take(page, out / "viewing_side_by_side.webp", pointer=(900, 420))
        page.click("[data-view=blend]")
        page.locator("#opacity").fill("0.5")
        take(page, out / "viewing_blend.webp", pointer=(600, 420))
        page.click("[data-view=side]")
        page.select_option("#slides", "0")
        take(page, out / "viewing_slide.webp", pointer=(600, 420))
        page.click("[data-view=space]")
        take(page, out / "viewing_3d.webp")


def landmark_page(page: Page, specimen: Path, placement: Path, out: Path) -> None:
    ct, slide = (
        tomostain.read_volume(specimen / "ct.ome.zarr"),
        tomostain.read_slide(placement.with_name("slide_0.tif")),
    )
    truth = Placement.load(placement)
    rows, columns = truth.slide_shape
    px = np.array([[0.3, 0.3], [0.3, 0.7], [0.7, 0.3], [0.68, 0.72], [0.5, 0.45]]) * [rows, columns]
    table = [
        f"L{i},{y},{x},{u},{v},{w}"
        for i, ((y, x), (u, v, w)) in enumerate(zip(px, truth.slide_to_volume_um(px), strict=True), 1)
    ]
    with tempfile.TemporaryDirectory() as folder:
        points = Path(folder) / "points.csv"
        points.write_text("\n".join(["name,slide_y_px,slide_x_px,volume_z_um,volume_y_um,volume_x_um", *table]) + "\n")
        with serve(LandmarkPage(ct, slide, points).site) as running:
            page.goto(running.address)
            page.wait_for_selector("body[data-ready]")
            page.check("#fitted")
            page.locator("#over").fill("55")
            time.sleep(2)
            write(page.screenshot(), out / "viewing_landmarks.webp")


def napari_window(specimen: Path, placement: Path, out: Path) -> None:
    """The layers of the specimen in napari in 3D, with the widget; a display (xvfb-run) is needed."""
    import napari
    import npe2
    from qtpy.QtWidgets import QApplication

    import tomostain.viewing

    manifest = Path(tomostain.viewing.__file__).with_name("napari.yaml")
    if "tomostain" not in npe2.PluginManager.instance():
        npe2.PluginManager.instance().register(npe2.PluginManifest.from_file(manifest))
    viewer: Any = napari.Viewer(show=True)
    viewer.window.resize(SIZE["width"], SIZE["height"])
    for path in (specimen / "ct.ome.zarr", specimen / "stain_truth.ome.zarr", placement):
        viewer.open(str(path), plugin="tomostain")
    viewer.window.add_plugin_dock_widget("tomostain", "Compare CT and stain")
    viewer.dims.ndisplay = 3
    viewer.reset_view()
    viewer.camera.angles = (10.0, -35.0, 115.0)
    end = time.monotonic() + 3
    while time.monotonic() < end:
        QApplication.processEvents()
        time.sleep(0.02)
    picture = viewer.screenshot(canvas_only=False, flash=False)[..., :3]
    save(Image.fromarray(np.ascontiguousarray(picture)), out / "viewing_napari.webp")
    viewer.close()


def take(page: Page, path: Path, *, pointer: tuple[int, int] | None = None) -> None:
    """Wait until all is drawn, point somewhere, and write what is on the screen."""
    page.evaluate(READY)
    if pointer:
        page.mouse.move(pointer[0] - 4, pointer[1])
        page.mouse.move(*pointer)
        time.sleep(0.6)
    page.evaluate(READY)
    write(page.screenshot(), path)


def write(picture: bytes, path: Path) -> None:
    save(Image.open(io.BytesIO(picture)).convert("RGB"), path)


def save(picture: Image.Image, path: Path) -> None:
    """Write WebP of less than 150 kB."""
    for quality in (85, 70, 50, 30):
        picture.save(path, "WEBP", quality=quality, method=6)
        if path.stat().st_size < 150_000:
            print(f"{path}: {path.stat().st_size / 1000:.0f} kB")
            return
    raise ValueError(f"{path} is over 150 kB")


if __name__ == "__main__":
    docs = Path(__file__).resolve().parents[1] / "docs" / "images"
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else docs))
