"""In a real browser the panels show the pixels that zarr reads, and a slide appears where its placement says."""

import io
import time

import numpy as np
import pytest
from PIL import Image

from tomostain.images.geometry import Grid
from tomostain.io.ome_zarr import create_volume
from tomostain.steps.view import ViewRecipe, view
from tomostain.viewing.page import study_site
from tomostain.viewing.sections import load_section
from tomostain.viewing.server import Site, serve
from tomostain.viewing.state import Study
from tomostain.viewing.stores import open_store
from viewing.known import GRID, colours_of

pytest.importorskip("neuroglancer")
TOLERANCE = 3
"""Counts of 255 by which a drawn pixel may differ from the voxel: rounding of shader and screen."""


@pytest.fixture(scope="module")
def study(specimen):
    ct, stained = (
        open_store(specimen / "ct.ome.zarr", colours=False),
        open_store(specimen / "stained.ome.zarr", colours=True),
    )
    return Study("known", stained, ct, {}, (load_section(specimen / "slide.placement.json", ct, stained),))


@pytest.fixture(scope="module")
def opened(study, make_page, tmp_path_factory):
    """The page of the study, drawn; and the server behind it."""
    with serve(study_site(study, tmp_path_factory.mktemp("site"))) as running, make_page() as page:
        page.goto(running.address)
        wait_until_drawn(page)
        yield page, running


DRAWN = """async (planes) => {
  const frame = () => new Promise((next) => requestAnimationFrame(next)), end = performance.now() + 90000;
  for (const z of planes) {
    if (z !== null) { viewer.position.value[2] = z; viewer.position.changed.dispatch(); }
    for (let i = 0; i < 3; i++) await frame();
    while (!viewer.isReady()) {
      if (performance.now() > end) return false;
      await frame();
    }
  }
  return true;
}"""


def wait_until_drawn(page, planes_um=(None,)):
    """Go to each plane in turn; neuroglancer says when every chunk that is visible has been drawn."""
    assert page.evaluate(DRAWN, list(planes_um)), page.faults


PANELS = """() => [...viewer.display.panels].filter((p) => p.sliceView).map((p) => {
  const r = p.element.getBoundingClientRect();
  return {left: r.left, top: r.top, width: r.width, height: r.height, x: r.x};
}).sort((a, b) => a.x - b.x)"""


def screen_point(page, panel, point_um, scale):
    """Where panel number ``panel`` shows a point (x, y) um of the plane through the position: x, y of the screen."""
    box = page.evaluate(PANELS)[panel]
    centre = page.evaluate("() => Array.from(viewer.position.value)")[:2]
    middle = [box[edge] + box[size] / 2 for edge, size in (("left", "width"), ("top", "height"))]
    return [a + (p - c) / scale for a, p, c in zip(middle, point_um, centre, strict=True)]


def shown_at(page, panel, point_um, scale):
    """The colour (3,) that a panel shows of a point."""
    x, y = screen_point(page, panel, point_um, scale)
    return np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("RGB"))[round(y), round(x)].astype(int)


def test_both_panels_show_the_voxels_that_zarr_reads(opened, study):
    page, _ = opened
    k = 11
    page.evaluate("() => { viewer.crossSectionScale.value = 1.0; }")
    wait_until_drawn(page, [GRID.origin_um[0] + k * 5.0])
    expected, low, high = colours_of(GRID), *study.ct.window
    for j, i in ((30, 40), (12, 20), (45, 61)):
        point = (GRID.origin_um[2] + i * 5.0, GRID.origin_um[1] + j * 5.0)
        assert np.abs(shown_at(page, 1, point, 1.0) - expected[k, j, i]).max() <= TOLERANCE
        grey = np.clip((study.ct.volume[k, j, i] - low) / (high - low), 0, 1) * 255
        assert np.abs(shown_at(page, 0, point, 1.0) - grey).max() <= TOLERANCE
    assert not page.faults


def test_a_slide_appears_where_its_placement_says_between_ct_and_stain(opened, study):
    page, _ = opened
    page.select_option("#slides", "0")
    wait_until_drawn(page)
    section, scale = study.sections[0], page.evaluate("() => viewer.crossSectionScale.value")
    box = page.evaluate(PANELS)[1]
    picture = np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("RGB")).astype(int)
    middle = [(n - 1) / 2 for n in section.plane.shape]
    for row, column in ((20, 30), (20, 130), (100, 40), (100, 130), (55, 75), (65, 85)):
        y = box["top"] + box["height"] / 2 + (row - middle[0]) * section.plane.spacing_um / scale
        x = box["left"] + box["width"] / 2 + (column - middle[1]) * section.plane.spacing_um / scale
        assert np.abs(picture[round(y), round(x)] - section.rgb[row, column]).max() <= TOLERANCE, (row, column)
    assert not page.faults


def test_stain_over_ct_is_blended_as_the_slider_says_and_values_are_read_under_the_pointer(opened, study):
    page, _ = opened
    page.select_option("#slides", "")
    page.click("#straight")
    page.click("[data-view=blend]")
    page.evaluate("() => { const o = document.getElementById('opacity'); o.value = 0.5; "
                  "o.dispatchEvent(new Event('input')); viewer.crossSectionScale.value = 1.0; }")  # fmt: skip
    wait_until_drawn(page)
    k, j, i = 14, 30, 40
    wait_until_drawn(page, [GRID.origin_um[0] + k * 5.0])
    point = (GRID.origin_um[2] + i * 5.0, GRID.origin_um[1] + j * 5.0)
    (low, high), ct = study.ct.window, float(study.ct.volume[k, j, i])
    expected = 0.5 * colours_of(GRID)[k, j, i] + 0.5 * 255 * (ct - low) / (high - low)
    assert np.abs(shown_at(page, 0, point, 1.0) - expected).max() <= TOLERANCE
    at = screen_point(page, 0, point, 1.0)
    page.mouse.move(at[0] - 9, at[1])
    page.mouse.move(*at)
    said, end = "", time.monotonic() + 30
    colour = "rgb {} {} {}".format(*colours_of(GRID)[k, j, i])
    while colour not in said and time.monotonic() < end:
        said = page.inner_text("#value")
        time.sleep(0.1)
    assert f"CT {float(f'{ct:.4g}'):g} 1/cm" in said
    assert colour in said
    for other in ("four", "space", "side"):
        page.click(f"[data-view={other}]")
        wait_until_drawn(page)
    assert not page.faults


def test_no_chunk_is_read_twice_while_planes_are_scrolled_to_and_fro(opened):
    page, running = opened
    there = [5.0 * z for z in range(5, 25)]
    wait_until_drawn(page, [*there, *there[::-1]])
    read = [(path, part) for _, path, status, part in running.log if "/c/" in path and status == 206]
    assert read
    assert len(set(read)) == len(read)


def test_an_exported_folder_shows_the_same_from_a_web_server_with_a_coarser_map(study, make_page, specimen, tmp_path):
    thirds = tmp_path / "error.ome.zarr"
    grid = Grid((10, 20, 26), (15.0, 15.0, 15.0), tuple(o + 5.0 for o in GRID.origin_um))
    about = {"slope": 0.5, "intercept": 1.0, "units": "dE"}
    with create_volume(thirds, grid, attributes=about) as volume:
        volume[0:10, 0:20, 0:26] = np.broadcast_to(np.arange(26, dtype=np.uint8) * 9, grid.shape)
    recipe = ViewRecipe(map=(thirds,), export=tmp_path / "web", copy_data=True)
    view(specimen / "stained.ome.zarr", recipe=recipe)
    with serve(Site(folders={"web": tmp_path / "web"}, evaluates=True)) as running, make_page() as page:
        page.goto(f"{running.address}web/v/specimen/index.html")
        page.evaluate("() => { viewer.crossSectionScale.value = 1.5; }")
        wait_until_drawn(page, [GRID.origin_um[0] + 15 * 5.0])
        assert len(page.evaluate(PANELS)) == 3
        point = (GRID.origin_um[2] + 50 * 5.0, GRID.origin_um[1] + 22 * 5.0)
        assert np.abs(shown_at(page, 1, point, 1.5) - colours_of(GRID)[15, 22, 50]).max() <= TOLERANCE
        place = tuple(round((p - o) / 15.0) for p, o in zip(point[::-1], grid.origin_um[1:], strict=True))
        at = screen_point(page, 2, point, 1.5)
        said, expected = "", f"error {float(f'{0.5 * 9 * place[1] + 1.0:.4g}'):g} dE"
        end = time.monotonic() + 30
        while expected not in said and time.monotonic() < end:
            page.mouse.move(at[0] - 1, at[1])
            page.mouse.move(*at)
            time.sleep(0.1)
            said = page.inner_text("#value")
        assert expected in said
        assert not page.faults
