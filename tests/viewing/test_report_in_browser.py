"""The report, opened from disk: the line between CT and stain moves, the planes are scrolled, by mouse and by keys."""

import re
from importlib import resources

import jinja2
import numpy as np
import pytest

from tomostain.images.geometry import Grid
from tomostain.images.image import Volume
from tomostain.reporting.page import TEMPLATE
from tomostain.reporting.strips import strips

SHAPE = (12, 20, 30)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """The page's own section on the stained volume, with its script, as a file of its own."""
    z, y, x = np.meshgrid(*(np.arange(n) for n in SHAPE), indexing="ij")
    colours = np.stack([10 * z + 20, 5 * y + 20, 3 * x + 20], axis=-1).astype(np.uint8)
    ct = np.full(SHAPE, 0.5, np.float32)
    grid = Grid(SHAPE, (10.0, 5.0, 5.0), (100.0, 0.0, 0.0))
    made = strips(Volume(colours, grid, "s"), Volume(ct, grid, "ct"), window=(0.0, 1.0))
    text = resources.files("tomostain.reporting").joinpath(TEMPLATE).read_text(encoding="utf-8")
    section = re.search(r'<article class="case" id="scroll".*?</article>', text, re.DOTALL).group()
    script = re.search(r'\(\(\)=>\{const host=document.getElementById\("scroll"\).*?\}\)\(\);', text, re.DOTALL).group()
    style = re.search(r"<style>.*?</style>", text, re.DOTALL).group()
    page = jinja2.Template(f"<!doctype html>{style}<main>{section}</main><script>{script}</script>").render(strips=made)
    file = tmp_path_factory.mktemp("report") / "report.html"
    file.write_text(page, encoding="utf-8")
    return file, colours


def pixel(page, axis, row, column):
    script = """([axis, row, column]) => [...document.querySelectorAll('#scroll canvas')[axis].getContext('2d')
      .getImageData(column, row, 1, 1).data].slice(0, 3)"""
    return page.evaluate(script, [axis, row, column])


def test_the_line_and_the_planes_move_with_mouse_and_keys(report, make_page):
    file, colours = report
    with make_page() as page:
        page.goto(file.as_uri())
        page.wait_for_selector("#scroll canvas", state="visible")
        z, y, x = (n // 2 for n in SHAPE)
        assert pixel(page, 0, 4, 25) == colours[z, 4, 25].tolist()
        assert pixel(page, 0, 4, 5) == [128, 128, 128]
        canvas = page.locator("#scroll canvas").first
        box = canvas.bounding_box()
        page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + 10)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] * 0.1, box["y"] + 10)
        page.mouse.up()
        assert pixel(page, 0, 4, 5) == colours[z, 4, 5].tolist()
        assert pixel(page, 1, 3, 10) == colours[3, y, 10].tolist()
        assert pixel(page, 2, 3, 10) == colours[3, 10, x].tolist()
        canvas.focus()
        page.keyboard.press("ArrowDown")
        page.keyboard.press("ArrowDown")
        assert pixel(page, 0, 4, 5) == colours[z + 2, 4, 5].tolist()
        assert page.locator("#scroll output").first.inner_text() == "180 µm"
        page.locator("#scroll input[data-axis]").nth(2).fill("7")
        assert pixel(page, 2, 3, 10) == colours[3, 10, 7].tolist()
        page.locator("#swipe").fill("100")
        assert pixel(page, 0, 4, 25) == [128, 128, 128]
        assert not page.faults
