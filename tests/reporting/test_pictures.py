"""Pictures keep their pixels, and scale bars their lengths."""

from __future__ import annotations

import base64
import io
import re
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from tomostain.images.geometry import Grid
from tomostain.images.image import Volume
from tomostain.reporting.cuts import orthogonal_cuts
from tomostain.reporting.figures import METHOD_COLOURS, _running_mean, curves_figure, scores_figure
from tomostain.reporting.pictures import Picture, error_map, grey, hatched, nice_length, picture


def _pixels(shown: Picture) -> npt.NDArray[np.uint8]:
    with Image.open(io.BytesIO(base64.b64decode(shown.uri.partition(",")[2]))) as file:
        return np.asarray(file)


@pytest.mark.parametrize(
    ("most", "length"), [(375.0, 200.0), (500.0, 500.0), (0.3, 0.2), (1999.0, 1000.0), (9.99, 5.0)]
)
def test_scale_bars_have_round_lengths(most: float, length: float) -> None:
    assert nice_length(most) == pytest.approx(length)


def test_a_picture_keeps_its_pixels_its_shape_in_the_world_and_its_scale() -> None:
    image = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    shown = picture(image, "x", spacing_um=(10.0, 5.0))
    np.testing.assert_array_equal(_pixels(shown), image)
    assert shown.aspect == pytest.approx((40 * 5) / (30 * 10))
    assert (shown.bar_um, shown.bar_share, shown.bar_label) == (50.0, pytest.approx(50 / 200), "50 µm")
    assert picture(image, "x", spacing_um=(200.0, 200.0)).bar_label == "2 mm"


def test_a_lossy_picture_keeps_its_size() -> None:
    image = np.full((30, 40, 3), 120, np.uint8)
    shown = picture(image, "x", spacing_um=(1.0, 1.0), lossless=False)
    assert shown.uri.startswith("data:image/jpeg")
    assert np.abs(_pixels(shown).astype(int) - 120).max() <= 2


def test_greys_are_stretched_and_clipped_between_the_window() -> None:
    assert grey(np.asarray([[-1.0, 0.0, 1.0, 2.0, 9.0, np.nan]]), 0.0, 2.0).tolist() == [[0, 0, 128, 255, 255, 0]]


def test_hatching_touches_masked_pixels_only() -> None:
    image = np.full((60, 60, 3), 10, np.uint8)
    mask = np.ones((60, 60), bool)
    mask[:, 30:] = False
    shown = hatched(image, mask)
    assert (shown[mask] == 10).all()
    assert len(np.unique(shown[~mask])) == 2
    assert (shown[~mask] != 10).all()


def test_larger_errors_are_brighter_and_saturate_at_the_top() -> None:
    error = np.asarray([[0.0, 10.0, 20.0, 40.0, 80.0]])
    shown = error_map(error, np.ones((1, 5), bool), top=40.0).sum(axis=2)[0].astype(int)
    assert (np.diff(shown[:4]) > 0).all()
    assert shown[3] == shown[4]


def test_the_ct_is_cut_at_the_stained_volumes_place_in_the_world() -> None:
    z, y, x = np.indices((20, 24, 28))
    values = (z * 0.01 + y * 0.02 + x * 0.002).astype(np.float32)
    ct = Volume(values, Grid(values.shape, (5.0, 5.0, 5.0), (0.0, 0.0, 0.0)), "ct")
    part = np.zeros((8, 10, 12, 3), np.uint8)
    stained = Volume(part, Grid((8, 10, 12), (5.0, 5.0, 5.0), (20.0, 25.0, 30.0)), "stained")
    cuts = orthogonal_cuts(stained, ct, window=(0.0, 1.0))
    box = values[4:12, 5:15, 6:18]
    for cut, plane in zip(cuts, (box[4], box[:, 5], box[:, :, 6]), strict=True):
        assert cut.ct is not None
        np.testing.assert_array_equal(_pixels(cut.ct), grey(plane, 0.0, 1.0))
        assert cut.ct.aspect == pytest.approx(cut.stained.aspect)
        assert cut.ct.lines == cut.stained.lines
    assert cuts[0].stained.lines == (("row", pytest.approx(5.5 / 10)), ("column", pytest.approx(6.5 / 12)))
    assert cuts[2].stained.lines == (("row", pytest.approx(4.5 / 8)), ("column", pytest.approx(5.5 / 10)))
    assert "z = 40 µm, plane 5 of 8" in cuts[0].where
    assert orthogonal_cuts(stained, None, window=(0.0, 1.0))[0].ct is None


def test_what_lies_outside_the_ct_or_has_no_value_in_it_is_hatched_in_both() -> None:
    values = np.full((8, 10, 12), 0.5, np.float32)
    values[:, 2:4, 3] = np.nan
    ct = Volume(values, Grid(values.shape, (5.0, 5.0, 5.0)), "ct")
    colours = np.full((8, 10, 16, 3), 7, np.uint8)
    stained = Volume(colours, Grid((8, 10, 16), (5.0, 5.0, 5.0), (0.0, 0.0, -10.0)), "stained")
    cut = orthogonal_cuts(stained, ct, window=(0.0, 1.0))[0]
    assert cut.ct is not None
    there = np.zeros((10, 16), bool)
    there[:, 2:14] = True
    there[2:4, 5] = False
    for shown, value in ((_pixels(cut.stained), 7), (_pixels(cut.ct), 128)):
        assert (shown[there] == value).all()
        assert {int(v) for v in np.unique(shown[~there])} == {128, 176}
        assert (shown[~there] == 176).all(axis=-1).any()


def test_bars_are_as_long_as_the_intervals() -> None:
    spread = {
        "stainer": {"ssim": {"mean": 0.5, "low": 0.4, "high": 0.6}},
        "colour table": {"ssim": {"mean": 0.5, "low": 0.45, "high": 0.85}},
    }
    points = {"stainer": {"ssim": [0.4, 0.6]}, "colour table": {"ssim": [0.5, float("inf")]}}
    svg = scores_figure(["ssim"], points, spread, {"ssim": "SSIM"})
    length = {}
    for method in spread:
        pattern = rf'd="M ([\d.]+) ([\d.]+) ?\n?L ([\d.]+) \2 ?\n?"[^>]*stroke: {METHOD_COLOURS[method]}'
        ((start, _, end),) = re.findall(pattern, svg)
        length[method] = float(end) - float(start)
    assert length["colour table"] == pytest.approx(2 * length["stainer"], rel=1e-3)


def test_the_running_mean_of_a_line_is_the_line_and_of_noise_is_calmer() -> None:
    line = np.arange(200.0)
    np.testing.assert_allclose(_running_mean(line)[5:-5], line[5:-5])
    noise = np.random.default_rng(0).normal(size=4000)
    assert _running_mean(noise).std() == pytest.approx(1 / np.sqrt(201), rel=0.2)


def test_figures_are_the_same_twice_and_share_no_id() -> None:
    curves = {"step": [1.0, 2.0, 3.0], "paired": [3.0, 2.0, 1.0], "val_ssim": [float("nan"), 0.5, 0.6]}
    spread = {"stainer": {"ssim": {"mean": 0.5, "low": 0.4, "high": 0.6}}}
    points = {"stainer": {"ssim": [0.4, 0.6]}}
    first, again = curves_figure(curves), curves_figure(curves)
    assert first == again
    other = scores_figure(["ssim"], points, spread, {"ssim": "SSIM"})
    ids = [set(re.findall(r'\bid="([^"]+)"', svg)) for svg in (first, other)]
    assert not ids[0] & ids[1]
    for svg in (first, other):
        root = ElementTree.fromstring(svg)
        assert root.tag.endswith("svg")
        assert root.get("viewBox")
    assert first.index("held out: SSIM") < first.index("paired")
    assert "currentColor" in first
    assert "#010203" not in first
