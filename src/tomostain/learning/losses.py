"""What is wrong with a translation: each loss is one function of a Translation and one line in LOSSES.

All images are unit values, (b, c, y, x). Every pixelwise loss is a weighted mean: a pixel of weight 0 (masked) counts
nothing, and a loss that looks at a neighbourhood leaves such pixels out of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from types import MappingProxyType

import torch
from torch import Tensor
from torch.nn import functional

from tomostain.learning.patches import Patch
from tomostain.learning.ranges import luminance
from tomostain.scoring.lpips import Lpips

Net = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Translation:
    """One batch on its way there and back. Each part is computed on first use.

    ``here`` gives the CT that is stained, ``there`` the stain that CT is generated from: the same patches where pairs
    are used, different ones where they are not. ``stain_generator`` goes CT -> stain, ``ct_generator`` stain -> central
    CT plane; the discriminators give one verdict per image patch, the stain's also gets the CT where ``conditional``.
    """

    here: Patch
    there: Patch
    stain_generator: Net
    ct_generator: Net | None = None
    stain_discriminator: Net | None = None
    ct_discriminator: Net | None = None
    conditional: bool = False

    @property
    def ct(self) -> Tensor:
        """The CT slab that is stained, (b, planes, y, x)."""
        return self.here.ct

    @property
    def stain(self) -> Tensor:
        """The true stain, (b, 3, y, x); 0 where its weight is 0."""
        return self.there.stain

    @property
    def weight(self) -> Tensor:
        """Weight of the pair's pixels, (b, 1, y, x) in [0, 1]."""
        return self.there.weight

    @cached_property
    def fake_stain(self) -> Tensor:
        """CT -> stain, (b, 3, y, x)."""
        return self.stain_generator(self.ct).float()

    @cached_property
    def fake_ct(self) -> Tensor:
        """Stain -> central CT plane, (b, 1, y, x)."""
        return self._back(self.stain)

    @cached_property
    def cycled_ct(self) -> Tensor:
        """CT -> stain -> central CT plane, (b, 1, y, x)."""
        return self._back(self.fake_stain)

    @cached_property
    def cycled_stain(self) -> Tensor:
        """Stain -> CT -> stain, (b, 3, y, x); a slab's planes all get the one CT plane that there is."""
        return self.stain_generator(self.fake_ct.expand(-1, self.ct.shape[1], -1, -1)).float()

    @cached_property
    def judged_stain(self) -> Tensor:
        """The stain discriminator's verdicts on the virtual stain."""
        if self.stain_discriminator is None:
            raise ValueError("this loss needs a stain discriminator, and the method has none")
        return self.stain_discriminator(self.shown_fake_stain)

    @cached_property
    def judged_ct(self) -> Tensor:
        """The CT discriminator's verdicts on the generated CT."""
        if self.ct_discriminator is None:
            raise ValueError(
                "this loss needs a CT discriminator, and the method has none; use cyclegan or paired_cyclegan"
            )
        return self.ct_discriminator(self.shown_fake_ct)

    @property
    def shown_fake_stain(self) -> Tensor:
        """What the stain discriminator is shown of the virtual stain: masked pixels grey, as in the true one."""
        return self._with_ct(shown(self.fake_stain, self.here.weight), self.here)

    @property
    def shown_stain(self) -> Tensor:
        """What the stain discriminator is shown of the true stain."""
        return self._with_ct(shown(self.stain, self.there.weight), self.there)

    @property
    def shown_fake_ct(self) -> Tensor:
        """What the CT discriminator is shown of the generated CT: masked pixels grey."""
        return shown(self.fake_ct, self.there.weight)

    @property
    def shown_ct(self) -> Tensor:
        """What the CT discriminator is shown of the true CT."""
        return shown(self.here.central_ct, self.here.weight)

    def _back(self, stain: Tensor) -> Tensor:
        if self.ct_generator is None:
            raise ValueError("this loss needs a way back from stain to CT; use cyclegan or paired_cyclegan")
        return self.ct_generator(stain).float()

    def _with_ct(self, stain: Tensor, patch: Patch) -> Tensor:
        return torch.cat([patch.ct, stain], dim=1) if self.conditional else stain


def shown(image: Tensor, weight: Tensor) -> Tensor:
    """The image with all pixels of weight 0 set to 0 (grey)."""
    return image * (weight > 0)


def weighted_mean(values: Tensor, weight: Tensor) -> Tensor:
    """Mean of (b, c, y, x) values under (b, 1, y, x) weights; 0 where all weights are 0."""
    return (values * weight).sum() / (weight.sum() * values.shape[1]).clamp_min(1e-8)


def adversarial(t: Translation) -> Tensor:
    """How far the stain discriminator is from taking the virtual stain for real (least squares, Mao et al. 2017)."""
    return (t.judged_stain - 1.0).square().mean()


def adversarial_hinge(t: Translation) -> Tensor:
    """The same by the hinge objective (Lim & Ye 2017): the discriminator's mean verdict, to be raised."""
    return -t.judged_stain.mean()


def adversarial_bce(t: Translation) -> Tensor:
    """The same by the logistic objective of Pix2Pix (Isola et al. 2017): cross entropy of the verdict and "real"."""
    return functional.binary_cross_entropy_with_logits(t.judged_stain, torch.ones_like(t.judged_stain))


def adversarial_ct(t: Translation) -> Tensor:
    """The same for CT generated from stain."""
    return (t.judged_ct - 1.0).square().mean()


def paired(t: Translation) -> Tensor:
    """Mean absolute difference of the virtual from the true stain (Isola et al. 2017), by weight."""
    return weighted_mean((t.fake_stain - t.stain).abs(), t.weight)


def squared(t: Translation) -> Tensor:
    """Mean squared difference of the virtual from the true stain, by weight.

    Beside ``paired``, whose best guess is the median colour: where slides differ in dye, the mean is nearer to most.
    """
    return weighted_mean((t.fake_stain - t.stain).square(), t.weight)


def paired_ct(t: Translation) -> Tensor:
    """Mean absolute difference of the generated from the true CT, by weight."""
    return weighted_mean((t.fake_ct - t.here.central_ct).abs(), t.weight)


def pyramid(t: Translation) -> Tensor:
    """Paired difference of images 2, 4 and 8 times coarser, averaged (Liu et al. 2022): small shifts cost little."""
    fake, true, weight, total = t.fake_stain, t.stain, t.weight, t.weight.new_zeros(())
    for _ in range(3):
        coarse = functional.avg_pool2d(weight, 2)
        fake, true = (functional.avg_pool2d(image * weight, 2) / coarse.clamp_min(1e-6) for image in (fake, true))
        weight = coarse
        total = total + weighted_mean((fake - true).abs(), weight)
    return total / 3.0


def cycle(t: Translation) -> Tensor:
    """How far CT -> stain -> CT comes back from where it began (Zhu et al. 2017)."""
    return weighted_mean((t.cycled_ct - t.here.central_ct).abs(), (t.here.weight > 0).float())


def cycle_stain(t: Translation) -> Tensor:
    """How far stain -> CT -> stain comes back from where it began."""
    return weighted_mean((t.cycled_stain - t.stain).abs(), (t.there.weight > 0).float())


def identity(t: Translation) -> Tensor:
    """How much a generator changes what is already there (Zhu et al. 2017), asked both ways.

    One generator is given the stain's grey for CT, the other the CT as a grey stain. Of use where bright in CT is
    bright in the stain; metal is bright in one and black in the other, so it is off by default.
    """
    grey = luminance(t.stain).expand(-1, t.ct.shape[1], -1, -1)
    stain = weighted_mean((t.stain_generator(grey) - t.stain).abs(), t.weight)
    if t.ct_generator is None:
        return stain
    same_ct = t.ct_generator(shown(t.here.central_ct, t.here.weight).expand(-1, 3, -1, -1))
    return stain + weighted_mean((same_ct - t.here.central_ct).abs(), (t.here.weight > 0).float())


def greyscale(t: Translation) -> Tensor:
    """Greyscale consistency with the true stain: difference of the luminances, each averaged over 3 x 3 pixels.

    Luminance carries bone, metal and spaces, while hue varies with the batch of dye; the small average lets a
    misplacement of a pixel pass. Masked pixels are left out of the averages.
    """
    grey, true = (_local_mean(luminance(s), t.weight, 3) for s in (t.fake_stain, t.stain))
    return weighted_mean((grey - true).abs(), t.weight)


def structure(t: Translation) -> Tensor:
    """Greyscale consistency with the CT: 1 - squared correlation of its luminance with the CT in 9 x 9 windows.

    It is small where edges of stain and CT agree, however badly the slide was registered. The correlation
    is squared, so its sign is free: metal is bright in CT and black in the stain, bone bright and pale. Windows count
    the more, the further the standard deviation of their CT exceeds 0.14 (of half the CT range): noise in flat tissue
    has no influence.
    """
    weight = (t.here.weight > 0).float()
    grey, ct = luminance(t.fake_stain), t.here.central_ct
    grey_mean, ct_mean = _local_mean(grey, weight, 9), _local_mean(ct, weight, 9)
    grey_variance = (_local_mean(grey.square(), weight, 9) - grey_mean.square()).clamp_min(0.0)
    ct_variance = (_local_mean(ct.square(), weight, 9) - ct_mean.square()).clamp_min(0.0)
    covariance = _local_mean(grey * ct, weight, 9) - grey_mean * ct_mean
    likeness = covariance.square() / ((grey_variance + 1e-3) * (ct_variance + 1e-3))
    return weighted_mean(1.0 - likeness, weight * ct_variance.square() / (ct_variance.square() + 0.02**2))


def texture(t: Translation) -> Tensor:
    """Difference of the virtual from the true stain in how much it varies, at two scales, colour by colour.

    The standard deviations in 9 x 9 windows of what is finer than 3 px, and of what lies between 3 and 9 px. Nuclei and
    fibres cannot be foretold pixel by pixel, so that ``paired`` alone shows them as flat tissue; how grainy a tissue
    is can (after the texture statistics of Gatys et al. 2015, on the image itself instead of a network's features).
    """
    weight = (t.weight > 0).float()
    total = weight.new_zeros(())
    for stained, true in zip(_spreads(t.fake_stain, weight), _spreads(t.stain, weight), strict=True):
        total = total + weighted_mean((stained - true).abs(), t.weight)
    return total


def ssim_loss(t: Translation) -> Tensor:
    """1 - SSIM (Wang et al. 2004) of the virtual and the true stain in 7 x 7 windows, colour by colour, by weight."""
    weight = (t.weight > 0).float()
    fake, true = t.fake_stain + 1.0, t.stain + 1.0
    fake_mean, true_mean = _local_mean(fake, weight, 7), _local_mean(true, weight, 7)
    fake_variance = (_local_mean(fake.square(), weight, 7) - fake_mean.square()).clamp_min(0.0)
    true_variance = (_local_mean(true.square(), weight, 7) - true_mean.square()).clamp_min(0.0)
    covariance = _local_mean(fake * true, weight, 7) - fake_mean * true_mean
    luminance_like = (2 * fake_mean * true_mean + 4e-4) / (fake_mean.square() + true_mean.square() + 4e-4)
    structure_like = (2 * covariance + 3.6e-3) / (fake_variance + true_variance + 3.6e-3)
    return weighted_mean(1.0 - luminance_like * structure_like, t.weight)


def shift_tolerant(t: Translation) -> Tensor:
    """Mean absolute difference over 7 x 7 pixels, each place at the best of nine shifts of the true stain.

    The shifts are 0 or 2 px along each axis: a slide that lies a little beside its place costs little, and the virtual
    stain need not be blurred for it (after the local registration of RegGAN, Kong et al. 2021, without a network).
    """
    weight = (t.weight > 0).float()
    errors = []
    for down in (-2, 0, 2):
        for right in (-2, 0, 2):
            true, there = (torch.roll(image, (down, right), (2, 3)) for image in (t.stain, weight))
            apart = (t.fake_stain - true).abs().mean(dim=1, keepdim=True)
            errors.append(_local_mean(apart, weight * there, 7))
    return weighted_mean(torch.stack(errors).amin(dim=0), t.weight)


def perceptual(t: Translation) -> Tensor:
    """LPIPS of the virtual and the true stain with SqueezeNet (Zhang et al. 2018); scores use AlexNet instead.

    Raises
    ------
    FileNotFoundError
        The published weights are not on this machine; the message says how to get them.
    """
    distances: Tensor = _squeezenet(t.fake_stain.device)(t.fake_stain, t.stain, t.weight)
    return distances.mean()


@cache
def _squeezenet(device: torch.device) -> Lpips:
    return Lpips.load("squeeze").to(device)


def _spreads(image: Tensor, weight: Tensor) -> list[Tensor]:
    """Standard deviations in 9 x 9 windows of the image's finest details and of the next coarser ones."""
    smooth = _local_mean(image, weight, 3)
    bands = (image - smooth, smooth - _local_mean(image, weight, 9))
    return [(_local_mean(band.square(), weight, 9) + 1e-4).sqrt() for band in bands]


def _local_mean(image: Tensor, weight: Tensor, size: int) -> Tensor:
    """Weighted mean over size x size windows, (b, c, y, x)."""
    return _window_mean(image * weight, size) / _window_mean(weight, size).clamp_min(1e-6)


def _window_mean(image: Tensor, size: int) -> Tensor:
    """Mean over windows, along the rows and then along the columns: 2 x size values instead of size squared."""
    along_y = functional.avg_pool2d(image, (size, 1), 1, (size // 2, 0))
    return functional.avg_pool2d(along_y, (1, size), 1, (0, size // 2))


Loss = Callable[[Translation], Tensor]

LOSSES: Mapping[str, Loss] = MappingProxyType(
    {
        "adversarial": adversarial,
        "adversarial_hinge": adversarial_hinge,
        "adversarial_bce": adversarial_bce,
        "adversarial_ct": adversarial_ct,
        "paired": paired,
        "squared": squared,
        "paired_ct": paired_ct,
        "pyramid": pyramid,
        "cycle": cycle,
        "cycle_stain": cycle_stain,
        "identity": identity,
        "greyscale": greyscale,
        "structure": structure,
        "texture": texture,
        "ssim": ssim_loss,
        "shift_tolerant": shift_tolerant,
        "perceptual": perceptual,
    }
)

WAY_BACK = frozenset({"paired_ct", "adversarial_ct", "cycle", "cycle_stain", "identity"})
"""Losses that need the stain -> CT generator or more passes; ``cycle_every`` can make them rarer."""


ADVERSARIAL = ("adversarial", "adversarial_hinge", "adversarial_bce")
"""Losses that need the stain discriminator, each with an objective of its own."""


def discriminator_loss(on_real: Tensor, on_fake: Tensor, *, objective: str = "adversarial") -> Tensor:
    """How far a discriminator is from telling 1 for real and 0 for generated: half the sum of both mean squares.

    ``objective`` is the generator's adversarial loss: by ``adversarial_hinge`` and ``adversarial_bce`` the verdict is
    not bounded, and its sign tells.
    """
    if objective == "adversarial_hinge":
        return functional.relu(1.0 - on_real).mean() + functional.relu(1.0 + on_fake).mean()
    if objective == "adversarial_bce":
        by_logit = functional.binary_cross_entropy_with_logits
        return 0.5 * (by_logit(on_real, torch.ones_like(on_real)) + by_logit(on_fake, torch.zeros_like(on_fake)))
    return 0.5 * ((on_real - 1.0).square().mean() + on_fake.square().mean())
