import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from tomostain.learning.losses import LOSSES, WAY_BACK, Translation, discriminator_loss, structure, weighted_mean
from tomostain.learning.methods import METHODS
from tomostain.learning.nets.varied import varied
from tomostain.learning.patches import Patch
from tomostain.scoring.lpips import find_weights

PIXELWISE = sorted(set(LOSSES) - {"adversarial", "adversarial_hinge", "adversarial_ct", "perceptual"})


def patch(seed=0, *, masked=True, size=32):
    draw = torch.Generator().manual_seed(seed)
    ct, stain = (torch.rand((2, n, size, size), generator=draw) * 2 - 1 for n in (1, 3))
    weight = torch.rand((2, 1, size, size), generator=draw) * 0.5 + 0.5
    if masked:
        weight[:, :, :, :12] = 0
    return Patch(ct, stain * (weight > 0), weight)


def networks(seed=0):
    torch.manual_seed(seed)
    return {
        "stain_generator": nn.Conv2d(1, 3, 3, padding=1),
        "ct_generator": nn.Conv2d(3, 1, 3, padding=1),
        "stain_discriminator": nn.Conv2d(3, 1, 4, 2),
        "ct_discriminator": nn.Conv2d(1, 1, 4, 2),
    }


def translation(here, nets=None, there=None, **more):
    return Translation(here, there or here, **(nets or networks()), **more)


def fixed(painted):
    """A translation whose painted stain is given."""
    return lambda here: Translation(here, here, stain_generator=lambda ct: painted)


def gradients(loss, here, nets):
    for net in nets.values():
        net.zero_grad()
    value = loss(translation(here, nets))
    value.backward()
    return [value.detach()] + [p.grad.clone() for net in nets.values() for p in net.parameters() if p.grad is not None]


@pytest.mark.parametrize("name", PIXELWISE)
def test_a_masked_pixel_of_the_target_changes_no_loss_and_no_gradient(name):
    here, nets = patch(), networks()
    garbled = Patch(here.ct, torch.where(here.weight > 0, here.stain, 0.77), here.weight)
    # the stain that enters a network is greyed where masked when the patch is made; a loss's target must not rely on it
    before = gradients(LOSSES[name], here, nets)
    if name in ("paired", "pyramid", "greyscale", "structure"):
        after = gradients(LOSSES[name], garbled, nets)
        assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    else:
        ct = torch.where(here.weight > 0, here.ct, 5.0)
        target = LOSSES[name](CtTarget(here, ct, nets))
        assert torch.equal(before[0], target.detach())


class CtTarget(Translation):
    """A translation whose true CT, as a target only, differs where masked."""

    def __init__(self, here, ct, nets):
        super().__init__(here, here, **nets)
        object.__setattr__(self, "here", Shown(here, ct))

    @property
    def ct(self):
        return self.there.ct


class Shown:
    def __init__(self, here, ct):
        self.ct, self.stain, self.weight, self.central_ct = here.ct, here.stain, here.weight, ct


def test_the_discriminators_never_see_what_is_masked():
    here, nets = patch(), networks()
    t = translation(here, nets)
    for image in (t.shown_stain, t.shown_fake_stain, t.shown_ct, t.shown_fake_ct):
        assert (image[..., :12] == 0).all()
        assert (image[..., 12:] != 0).any()


def test_paired_is_the_weighted_mean_difference():
    here = patch()
    painted = here.stain + 0.25
    assert LOSSES["paired"](fixed(painted)(here)).item() == pytest.approx(0.25, abs=1e-6)
    doubled = Patch(here.ct, here.stain, here.weight.clone())
    painted = here.stain.clone()
    painted[..., 20:] += 1.0
    share = (here.weight[..., 20:].sum() / here.weight.sum()).item()
    assert LOSSES["paired"](fixed(painted)(doubled)).item() == pytest.approx(share, abs=1e-5)


def test_squared_is_the_weighted_mean_square():
    here = patch()
    painted = here.stain.clone()
    painted[..., 20:] += 0.5
    share = (here.weight[..., 20:].sum() / here.weight.sum()).item()
    assert LOSSES["squared"](fixed(painted)(here)).item() == pytest.approx(0.25 * share, abs=1e-5)


def test_losses_of_ct_and_cycles_are_mean_differences_from_what_they_began_with():
    here = patch()
    nets = networks() | {
        "stain_generator": lambda image: here.stain + 0.25,
        "ct_generator": lambda image: here.ct - 0.5,
    }
    t = translation(here, nets)
    assert LOSSES["paired_ct"](t).item() == pytest.approx(0.5, abs=1e-6)
    assert LOSSES["cycle"](t).item() == pytest.approx(0.5, abs=1e-6)
    assert LOSSES["cycle_stain"](t).item() == pytest.approx(0.25, abs=1e-6)
    assert LOSSES["identity"](t).item() == pytest.approx(0.75, abs=1e-6)


@pytest.mark.parametrize("name", ["squared", "texture", "paired_ct", "cycle", "cycle_stain"])
def test_what_is_painted_where_the_target_is_masked_changes_no_loss(name):
    here = patch()
    off = 3.0 * (here.weight == 0)
    # the texture of a pixel is that of its 9 x 9 window, which leaves masked pixels out
    clean = {"stain_generator": lambda image: 0.5 * here.stain, "ct_generator": lambda image: 0.5 * here.ct}
    dirty = {"stain_generator": lambda image: 0.5 * here.stain + off, "ct_generator": lambda image: 0.5 * here.ct + off}
    values = [LOSSES[name](translation(here, networks() | nets)).item() for nets in (clean, dirty)]
    assert values[0] > 0.01
    assert values[1] == pytest.approx(values[0], rel=1e-6)


@pytest.mark.parametrize("name", ["paired", "squared", "pyramid", "greyscale", "texture"])
def test_nothing_is_wrong_with_the_true_stain(name):
    here = patch()
    assert LOSSES[name](fixed(here.stain)(here)).item() == pytest.approx(0.0, abs=1e-6)


def test_pyramid_forgives_a_small_shift_and_paired_does_not():
    here = patch(masked=False, size=64)
    shifted = torch.roll(here.stain, 1, dims=3)
    costs = {n: LOSSES[n](fixed(shifted)(here)) / LOSSES[n](fixed(-here.stain)(here)) for n in ("paired", "pyramid")}
    assert costs["pyramid"] < 0.7 * costs["paired"]


def steps_ct(noise=0.0, size=64):
    ct = torch.full((1, 1, size, size), -0.8)
    ct[..., 20:44, 20:44] = 0.8
    return ct + noise * torch.randn(ct.shape, generator=torch.Generator().manual_seed(0))


def on_ct(ct, painted):
    return Translation(
        *[Patch(ct, torch.zeros(1, 3, *ct.shape[2:]), torch.ones_like(ct))] * 2, stain_generator=lambda _: painted
    )


def test_structure_asks_for_the_ct_s_edges_whatever_their_sign():
    ct = steps_ct()
    same, inverted = (structure(on_ct(ct, (sign * 0.5 * ct).expand(-1, 3, -1, -1))) for sign in (1, -1))
    flat = structure(on_ct(ct, torch.zeros(1, 3, 64, 64)))
    elsewhere = structure(on_ct(ct, torch.roll(ct, 8, dims=3).expand(-1, 3, -1, -1)))
    assert same.item() == pytest.approx(inverted.item(), abs=1e-5)
    assert same < 0.05 < 0.5 < elsewhere
    assert flat.item() == pytest.approx(1.0, abs=1e-6)


def test_structure_does_not_ask_for_ct_noise():
    noisy = steps_ct(0.05)
    clean_edges = structure(on_ct(noisy, steps_ct().expand(-1, 3, -1, -1)))
    painted_noise = structure(on_ct(noisy, noisy.expand(-1, 3, -1, -1)))
    assert (clean_edges - painted_noise).item() < 0.15


def test_greyscale_ignores_hue_and_sees_luminance():
    here = patch()
    hue = here.stain.clone()
    hue[:, 0] += 0.587 * 0.5
    hue[:, 1] -= 0.299 * 0.5
    assert LOSSES["greyscale"](fixed(hue)(here)).item() == pytest.approx(0.0, abs=1e-5)
    assert LOSSES["greyscale"](fixed(here.stain + 0.2)(here)).item() == pytest.approx(0.2, abs=1e-5)


def test_texture_ignores_a_smooth_error_and_asks_for_grain():
    here = patch(masked=False, size=48)
    ramp = torch.linspace(-0.2, 0.2, 48).expand(2, 3, 48, 48)
    smooth = functional.avg_pool2d(here.stain, 9, 1, 4)
    assert LOSSES["texture"](fixed(here.stain + ramp)(here)) < 0.02
    assert LOSSES["texture"](fixed(smooth)(here)) > 0.4
    assert LOSSES["texture"](fixed(here.stain.flip(-1))(here)) < 0.3


def test_least_squares_verdicts():
    ones, zeros = torch.ones(1, 1, 3, 3), torch.zeros(1, 1, 3, 3)
    assert discriminator_loss(ones, zeros).item() == 0.0
    assert discriminator_loss(zeros, ones).item() == 1.0
    here = patch()
    t = translation(here, {**networks(), "stain_discriminator": lambda image: image.mean() * 0 + 0.25 * ones})
    assert LOSSES["adversarial"](t).item() == pytest.approx(0.5625)


def test_a_conditional_discriminator_is_shown_the_ct_too():
    here = patch()
    t = translation(here, conditional=True)
    assert torch.equal(t.shown_stain[:, :1], here.ct)
    assert t.shown_fake_stain.shape[1] == 4


def test_only_what_a_loss_asks_for_is_computed():
    calls = []
    here, nets = patch(), networks()
    counted = {n: (lambda image, n=n: calls.append(n) or nets[n](image)) for n in nets}
    t = translation(here, counted)
    LOSSES["paired"](t), LOSSES["greyscale"](t), LOSSES["adversarial"](t)
    assert calls == ["stain_generator", "stain_discriminator"]
    assert "cycle" in WAY_BACK


def test_a_loss_without_its_network_says_so():
    here = patch()
    one_way = Translation(here, here, stain_generator=networks()["stain_generator"])
    with pytest.raises(ValueError, match="way back"):
        LOSSES["cycle"](one_way)
    with pytest.raises(ValueError, match="needs a stain discriminator"):
        LOSSES["adversarial"](one_way)


def test_weighted_mean_of_nothing_is_zero():
    assert weighted_mean(torch.ones(1, 3, 4, 4), torch.zeros(1, 1, 4, 4)).item() == 0.0


def test_weights_of_a_method_are_changed_by_name():
    method = METHODS["paired_cyclegan"].reweighted(("paired=7", "identity=0.5", "structure=0"))
    losses = method.losses()
    assert losses["paired"][0] == 7.0
    assert losses["identity"][0] == 0.5
    assert "structure" not in losses
    assert METHODS["paired_cyclegan"].weights["paired"] != 7.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("pared=3", "did you mean 'paired'"),
        ("paired", "name=number"),
        ("paired=x", "name=number"),
        ("paired=-1", "name=number"),
    ],
)
def test_a_wrong_weight_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        METHODS["pix2pix"].reweighted((change,))


def test_a_stranger_s_loss_is_used_by_its_module(monkeypatch, tmp_path):
    (tmp_path / "strangers_losses.py").write_text("def blue(t):\n    return t.fake_stain[:, 2].mean()\n")
    monkeypatch.syspath_prepend(tmp_path)
    weight, loss = METHODS["pix2pix"].reweighted(("strangers_losses:blue=2",)).losses()["strangers_losses:blue"]
    painted = torch.from_numpy(np.full((2, 3, 8, 8), 0.5, np.float32))
    assert weight == 2.0
    assert loss(fixed(painted)(patch())).item() == 0.5


def test_the_hinge_objective_asks_no_more_than_a_margin_of_one():
    real, fake = torch.tensor([2.0, 1.0]), torch.tensor([-3.0, -1.0])
    assert discriminator_loss(real, fake, objective="adversarial_hinge") == 0
    assert discriminator_loss(real - 1.0, fake + 1.0, objective="adversarial_hinge") == pytest.approx(0.5 + 0.5)
    nets = networks()
    here = patch()
    t = Translation(here, here, **nets)
    torch.testing.assert_close(LOSSES["adversarial_hinge"](t), -nets["stain_discriminator"](t.shown_fake_stain).mean())


def test_varied_images_keep_their_values_where_they_are_seen_and_pass_gradients():
    torch.manual_seed(0)
    image = torch.full((4, 3, 32, 32), 5.0, requires_grad=True)
    seen = varied(image)
    kept = seen != 0
    assert 0.3 < kept.float().mean() < 0.8
    assert (seen[kept] - 5.0).abs().max() <= 0.25
    seen.sum().backward()
    assert ((image.grad == 1).sum() == kept.sum()).item()
    torch.manual_seed(0)
    torch.testing.assert_close(varied(image), seen)


@pytest.mark.parametrize("shift", [(0, 0), (2, -2), (0, 2)])
def test_a_slide_that_lies_two_pixels_beside_its_place_costs_the_shift_tolerant_loss_nothing(shift):
    torch.manual_seed(0)
    true = torch.rand(1, 3, 40, 40)
    moved = torch.roll(true, shift, (2, 3))
    here = Patch(torch.zeros(1, 1, 40, 40), true, torch.ones(1, 1, 40, 40))
    inside = Patch(here.ct, here.stain, torch.nn.functional.pad(torch.ones(1, 1, 24, 24), (8, 8, 8, 8)))
    t = Translation(inside, inside, stain_generator=lambda _: moved)
    assert LOSSES["shift_tolerant"](t) < 1e-6
    assert LOSSES["paired"](t) == pytest.approx(0.0, abs=1e-6) if shift == (0, 0) else LOSSES["paired"](t) > 0.2


def test_the_ssim_loss_is_none_for_equal_images_and_about_one_for_unrelated_ones():
    torch.manual_seed(1)
    one, other = torch.rand(1, 3, 64, 64) * 2 - 1, torch.rand(1, 3, 64, 64) * 2 - 1
    here = Patch(torch.zeros(1, 1, 64, 64), one, torch.ones(1, 1, 64, 64))
    same, apart = (Translation(here, here, stain_generator=lambda _, made=made: made) for made in (one, other))
    assert LOSSES["ssim"](same) < 1e-5
    assert 0.8 < LOSSES["ssim"](apart) < 1.1


def test_the_perceptual_loss_is_lpips_of_what_counts():
    try:
        find_weights("squeeze")
    except FileNotFoundError:
        pytest.skip("THE WEIGHTS OF LPIPS ARE NOT HERE: set TOMOSTAIN_LPIPS")
    here = patch(size=48)
    assert LOSSES["perceptual"](fixed(here.stain)(here)) < 1e-6
    noisy = here.stain + 0.3 * torch.randn(here.stain.shape, generator=torch.Generator().manual_seed(1))
    beside = torch.where(here.weight > 0, here.stain, noisy)
    assert LOSSES["perceptual"](fixed(noisy)(here)) > 0.01
    assert LOSSES["perceptual"](fixed(beside)(here)) < 1e-6
