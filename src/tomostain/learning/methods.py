"""A method is a set of nets and weighted losses: pix2pix, CycleGAN, and the paired CycleGAN between the two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from tomostain._imports import pick
from tomostain.learning.losses import LOSSES, Loss
from tomostain.learning.nets.layers import Norm


@dataclass(frozen=True)
class Method:
    """Which nets are trained, on what, and what each loss weighs.

    ``there_and_back`` adds the stain -> CT generator (where ``adversarial_ct`` weighs anything, its discriminator too);
    ``paired`` False draws CT and stain from unrelated places; ``conditional`` shows the stain discriminator the CT;
    ``pooled`` shows the discriminators older generated images; ``bounded_ct`` ends generated CT in tanh. What a recipe
    leaves out is the method's: ``net`` the generator, ``clip`` the largest norm of its gradients (0: no limit), ``ema``
    the memory of the mean of its weights (0: none), ``dye`` whether slides are trained on as the mean slide is dyed,
    ``planes`` how many CT planes are seen (None: all that the pairs have), ``discriminator_norm``.
    """

    weights: Mapping[str, float]
    there_and_back: bool = True
    paired: bool = True
    conditional: bool = False
    pooled: bool = True
    bounded_ct: bool = True
    net: str = "reference_resnet"
    clip: float = 0.0
    ema: float = 0.0
    dye: bool = False
    planes: int | None = 1
    discriminator_norm: Norm = "instance"

    def losses(self) -> dict[str, tuple[float, Loss]]:
        """All losses that weigh anything: name -> (weight, function).

        Raises
        ------
        ValueError
            A loss is not known.
        """
        return {name: (weight, pick(name, LOSSES)) for name, weight in self.weights.items() if weight}

    def reweighted(self, changes: Sequence[str]) -> Method:
        """The method with some weights changed or added: ``("paired=50", "my.module:loss=2")``.

        Raises
        ------
        ValueError
            A change is not of the form name=number, negative, or names no loss.
        """
        weights = dict(self.weights)
        for change in changes:
            name, _, text = change.rpartition("=")
            try:
                weight = float(text)
            except ValueError:
                weight = -1.0
            if not name or not 0.0 <= weight < float("inf"):
                raise ValueError(f"{change!r} is not a loss weight; write name=number, such as paired=50")
            pick(name, LOSSES)
            weights[name] = weight
        return replace(self, weights=MappingProxyType(weights))


METHODS: Mapping[str, Method] = MappingProxyType(
    {
        "supervised": Method(
            MappingProxyType({"paired": 1.0, "squared": 1.0, "ssim": 0.2, "texture": 0.5}),
            there_and_back=False,
            pooled=False,
            net="subpixel_unet",
            clip=1.0,
            ema=0.999,
            dye=True,
            planes=None,
        ),
        "pix2pix": Method(
            MappingProxyType({"adversarial_bce": 1.0, "paired": 100.0}),
            there_and_back=False,
            conditional=True,
            pooled=False,
            net="reference_unet",
            discriminator_norm="batch",
        ),
        "cyclegan": Method(
            MappingProxyType(
                {"adversarial": 1.0, "adversarial_ct": 1.0, "cycle": 10.0, "cycle_stain": 10.0, "identity": 5.0}
            ),
            paired=False,
        ),
        "paired_cyclegan": Method(
            MappingProxyType(
                {
                    "adversarial": 1.0,
                    "adversarial_ct": 1.0,
                    "paired": 60.0,
                    "cycle": 10.0,
                    "cycle_stain": 10.0,
                    "greyscale": 10.0,
                }
            ),
        ),
    }
)
"""Supervised: our own, no discriminator. Pix2Pix: Isola et al. 2017. CycleGAN: Zhu et al. 2017, identity at half the
weight of the cycles. Paired CycleGAN: after Irvine et al. 2025, whose weights are not known to us; these are our
choice, tried in short runs only. All three see one CT plane, and have nothing that was added here since: no mean over
the steps, no dye removal, no limit on gradients."""
