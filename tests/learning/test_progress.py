"""progress.png shows what curves.csv holds, and the latest sample."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from tomostain.learning.curves import Curves, progress_figure, save_samples
from tomostain.learning.patches import Patch

LINES = [
    {"step": "4", "paired": "0.5", "cycle": "", "val_ssim": "", "lr": "1", "s_per_step": "2"},
    {"step": "8", "paired": "0.25", "cycle": "2", "val_ssim": "0.4", "lr": "1", "s_per_step": "2"},
]


def test_every_loss_and_score_is_a_line_of_its_own_values():
    sample = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    figure = progress_figure(LINES, sample, "step 8")
    drawn = {line.get_label(): line.get_xydata().tolist() for panel in figure.axes for line in panel.lines}
    assert drawn == {"paired": [[4, 0.5], [8, 0.25]], "cycle": [[8, 2]], "val_ssim": [[8, 0.4]]}
    titles = {panel.get_title(): [line.get_label() for line in panel.lines] for panel in figure.axes}
    assert titles == {"losses": ["paired", "cycle"], "ssim of held-out patches": ["val_ssim"], "step 8": []}
    np.testing.assert_array_equal(figure.axes[-1].images[0].get_array(), sample)


def test_without_held_out_specimens_the_picture_says_so():
    figure = progress_figure([{"step": "4", "paired": "1"}], np.zeros((2, 2, 3), np.uint8), "")
    assert "no specimen is held out" in [panel.get_title() for panel in figure.axes]


def test_each_sample_renews_progress_png(tmp_path):
    Curves(tmp_path / "curves.csv", ["paired"]).add(4, {"paired": 0.5})
    ct, stain, mask = torch.zeros(2, 1, 16, 16), torch.zeros(2, 3, 16, 16), torch.ones(2, 1, 16, 16)
    pictures = []
    for step, value in enumerate((-1.0, 1.0)):
        save_samples(tmp_path / "samples" / f"step_{step}.png", Patch(ct, stain, mask), torch.full_like(stain, value))
        pictures.append(np.asarray(Image.open(tmp_path / "progress.png").convert("RGB")))
    assert pictures[0].shape == pictures[1].shape == (770, 1210, 3)
    assert (pictures[0] != pictures[1]).any()


def test_tensorboard_reads_the_values_of_the_csv_and_the_picture(tmp_path):
    reading = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    curves = Curves(tmp_path / "curves.csv", ["paired"], tensorboard=True)
    curves.add(4, {"paired": 0.5})
    curves.add(8, {"paired": 0.25})
    curves.show(4, np.arange(48, dtype=np.uint8).reshape(4, 4, 3))
    Curves(tmp_path / "curves.csv", ["paired"], step=4, tensorboard=True).add(8, {"paired": 0.125})  # resumed
    events = reading.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("paired")] == [(4, 0.5), (8, 0.125)]
    (picture,) = events.Images("CT, virtual stain, true stain")
    shown = np.asarray(Image.open(io.BytesIO(picture.encoded_image_string)))
    np.testing.assert_array_equal(shown, np.arange(48, dtype=np.uint8).reshape(4, 4, 3))
