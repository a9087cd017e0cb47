"""Fine-tuning: what is taken over from a stainer, and what does not fit is refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from learning.conftest import synthetic_pair
from tomostain.learning.nets import NetSpec, build_generator
from tomostain.learning.ranges import CTRange
from tomostain.learning.recipe import TrainRecipe
from tomostain.learning.stainer import Stainer
from tomostain.learning.start import take_over
from tomostain.learning.training import fit

TINY = TrainRecipe(patch_px=32, batch=2, steps=2, log_every=2, clip=0.0, dye=False)
SPEC = NetSpec("subpixel_unet", {"width": 8, "depth": 1, "norm": "pixel", "up": "resize"})


def born(planes, spec=SPEC, **changes):
    torch.manual_seed(3)
    net = build_generator(spec, planes, 3).eval()
    for weight in net.parameters():
        if not weight.any():
            torch.nn.init.normal_(weight, std=0.05)
    values = {"stain": "toluidine blue", "um_per_px": 5.0, "planes": planes, "history": {"specimens": ["P0"]}}
    return Stainer(net=net, spec=spec, ct_range=CTRange(0.0, 2.0), **(values | changes))


def test_a_training_without_a_step_to_learn_in_gives_the_stainer_it_started_from(pairs, tmp_path):
    start = born(1)
    after = fit(pairs[:2], tmp_path, replace(TINY, lr=1e-12), start=start)
    ct = pairs[0].ct
    np.testing.assert_allclose(after(ct).astype(int), start(ct).astype(int), atol=1)
    assert (after.ct_range.low, after.ct_range.high) == (0.0, 2.0)
    assert after.history["from"]["specimens"] == ["P0"]
    assert (after.spec.name, after.spec.args["width"]) == ("subpixel_unet", 8)


@pytest.mark.parametrize(("planes", "more"), [(3, 5), (1, 7)])
def test_planes_that_the_start_does_not_know_change_nothing_at_first(planes, more):
    start, net = born(planes).net, build_generator(SPEC, more, 3).eval()
    taken, of = take_over(net, start)
    assert taken == of
    image = torch.rand(1, more, 32, 32)
    first = (more - planes) // 2
    torch.testing.assert_close(net(image), start(image[:, first : first + planes]), atol=1e-5, rtol=1e-4)


def test_what_has_another_shape_keeps_its_own_weights():
    wide = build_generator(NetSpec("subpixel_unet", {"width": 12, "depth": 1}), 1, 3)
    before = wide.stem.weight.clone()
    taken, of = take_over(wide, born(1).net)
    assert 0 < taken < of
    torch.testing.assert_close(wide.stem.weight, before)


def test_pairs_of_another_pixel_size_and_another_network_are_refused(pairs, tmp_path):
    with pytest.raises(ValueError, match=r"trained at 10 um per pixel, the pairs have 5 um.*--from"):
        fit(pairs[:2], tmp_path, TINY, start=born(1, um_per_px=10.0))
    with pytest.raises(ValueError, match=r"has net subpixel_unet; leave out --net resnet"):
        fit(pairs[:2], tmp_path, replace(TINY, net="resnet"), start=born(1))
    with pytest.raises(ValueError, match=r"has width 8; leave out --width 64"):
        fit(pairs[:2], tmp_path, replace(TINY, width=64), start=born(1))
    fit(pairs[:2], tmp_path / "near", TINY, start=born(1, um_per_px=10.0, within_um=(4.0, 12.0)))


def test_a_stainer_of_half_precision_comes_back_as_float(tmp_path):
    start = born(3)
    whole, half = start.save(tmp_path / "whole"), start.save(tmp_path / "half", half=True)
    sizes = [(folder / "weights.safetensors").stat().st_size for folder in (whole, half)]
    assert sizes[1] < 0.6 * sizes[0]
    loaded = Stainer.load(half)
    assert next(loaded.net.parameters()).dtype == torch.float32
    ct = synthetic_pair(1, planes=3).ct
    assert np.abs(loaded(ct).astype(int) - start(ct)).max() <= 2
