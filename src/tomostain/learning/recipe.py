"""How a stainer is trained: every setting, with unit and reason."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Annotated, Any, Literal

import yaml
from cyclopts import Parameter

from tomostain._imports import pick
from tomostain._settings import SEED, SHARE, Within, check_numbers
from tomostain.learning.augment import NO_AUGMENT, USUAL, Augment
from tomostain.learning.methods import METHODS, Method
from tomostain.learning.nets import NetSpec, Norm, Up, net_defaults
from tomostain.pairs.recipe import MOST_PLANES

Precision = Literal["32-true", "bf16-mixed"]
_PASSING = frozenset(
    {
        "resume",
        "from_stainer",
        "hours",
        "finish_now",
        "checkpoint_minutes",
        "checkpoint_every",
        "workers",
        "device",
        "sample_every",
        "validate_every",
        "tensorboard",
        "any_values",
    }
)
"""Settings that do not change what is learnt, so that a training may be resumed with others."""


@Parameter(name="*")
@dataclass(frozen=True)
class TrainRecipe:
    """How a stainer is trained. What is left out (None) is planned from the pairs, the machine and ``hours``."""

    from_stainer: Annotated[str | None, Parameter(name=("--from-stainer", "--from"))] = None
    """Fine-tune this stainer instead of starting at random weights: a folder, or a stainer that is shipped by name."""
    hours: Annotated[float | None, Within(0, 1e4, above=True)] = None
    """Time that the training may take; default: 1 on a CPU, 12 on a GPU. ``steps`` overrides it."""
    method: str = "supervised"
    """supervised, pix2pix, cyclegan or paired_cyclegan: which networks and losses, and whether pairs are used as
    pairs."""
    hold_out: tuple[str, ...] = ()
    """Specimens that are never trained on; they are scored during training and recorded with the stainer."""
    fold: Annotated[int | None, Within(0, 9999)] = None
    """Hold out this fold (from 0) of the specimens instead of named ones."""
    folds: Annotated[int, Within(2, 10_000)] = 4
    """Number of folds that the specimens are dealt into, in an order drawn from their names."""

    net: str | None = None
    """Generator: subpixel_unet, resnet, unet, reference_resnet and reference_unet (those of CycleGAN and Pix2Pix), or
    package.module:Class of your own; default: the method's."""
    width: Annotated[int | None, Within(1, 4096)] = None
    """Channels of the generator's first layer; cost grows with its square."""
    depth: Annotated[int | None, Within(0, 256)] = None
    """Residual blocks of a resnet (each sees 8 px further) or of a subpixel_unet, levels of a unet."""
    norm: Norm | None = None
    """Normalisation: pixel, batch and none leave tiles equal to the whole plane; instance, the classical, does not."""
    tone: bool = False
    """Begin at the colour table and learn what context changes of it."""
    up: Up | None = None
    """Enlargement: resize (tile-exact, no checkerboard) or transposed (classical)."""
    net_args: tuple[str, ...] = ()
    """Further arguments of the generator, each name=value: skips=false; of your own class, all that it takes."""
    discriminator: str = "patchgan"
    """Discriminator: patchgan, or package.module:Class of your own."""
    discriminator_width: Annotated[int, Within(1, 4096)] = 64
    """Channels of the discriminator's first layer."""
    discriminator_depth: Annotated[int, Within(1, 16)] = 3
    """Strided layers of the discriminator: 3 judges 70 px patches, 2 judges 34 px."""
    discriminator_args: tuple[str, ...] = ()
    """Further arguments of the discriminator, each name=value."""
    discriminator_augment: bool = False
    """Show the discriminators every image brighter or darker, shifted and with a hole (Zhao et al. 2020): of use where
    pairs are few."""

    planes: Annotated[int | None, Within(1, MOST_PLANES)] = None
    """CT planes that are seen, the central ones of the pairs; default: the method's (supervised: all, others: 1)."""
    most_pairs: Annotated[int | None, Within(1, 1e6)] = None
    """Train on so many pairs at most, dealt from one specimen after the other."""
    dye: bool | None = None
    """Train on slides that are all dyed as the mean slide is; each slide's dye strength and white balance are estimated
    from pixels of equal CT value. Default: the method's (supervised: yes). Not for methods without pairs."""
    weights: tuple[str, ...] = ()
    """Changes to the method's loss weights, each name=number: paired=50 structure=0 my_module:my_loss=2."""
    cycle_every: Annotated[int, Within(1, 1e6)] = 1
    """Take the way back (stain -> CT, cycles, identity) only every so many steps, with that many times the weight."""
    steps: Annotated[int | None, Within(1, 1e9)] = None
    """Optimiser steps."""
    batch: Annotated[int | None, Within(1, 4096)] = None
    """Patches per step and process."""
    patch_px: Annotated[int | None, Within(16, 16384)] = None
    """Edge of a training patch, in pixels of the CT; a multiple of the network's stride."""
    lr: Annotated[float | None, Within(0, 10, above=True)] = None
    """Adam's learning rate (its betas are 0.5 and 0.999, as in CycleGAN)."""
    clip: Annotated[float | None, Within(0, 1e6)] = None
    """Largest norm of the generators' gradients, which are scaled down to it; 0: no limit. Default: the method's."""
    decay_from: Annotated[float, SHARE] = 0.5
    """Share of the steps after which the learning rate falls linearly to 0."""
    ema: Annotated[float | None, SHARE] = None
    """Memory of the exponential mean of the weights (shorter at first), which is the stainer; 0: none. Default: the
    method's (supervised: 0.999, others: 0)."""
    pool: Annotated[int, Within(0, 1e6)] = 50
    """Generated images kept to be shown to the discriminators again (Shrivastava et al. 2017)."""
    min_weight: Annotated[float, SHARE] = 0.5
    """Smallest mean of mask x confidence over a patch; emptier places are not trained on."""
    ct_percentiles: Annotated[tuple[float, float], Within(0, 100)] = (0.5, 99.5)
    """Percentiles of the training CT that become -1 and 1; values beyond stay beyond, nothing is clipped."""
    ct_range: Annotated[tuple[float, float] | None, Within(-1e30, 1e30)] = None
    """CT values that become -1 and 1, instead of percentiles."""
    ct_units: str = ""
    """Units of the CT values, such as 1/cm; a label that travels with the stainer."""

    any_values: bool = False
    """Train on specimens whose CT grey values do not overlap; they are refused otherwise."""

    augment: bool = True
    """Vary the patches on the fly; each variation has its strength below."""
    variation: Annotated[Augment, Parameter(name="*")] = USUAL

    seed: Annotated[int, SEED] = 0
    """Decides the first weights and every patch; same seed, same machine: the same stainer, byte for byte."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    devices: Annotated[int, Within(1, 1024)] = 1
    """Processes, one a device; each learns from its own patches and they average their gradients."""
    precision: Precision | None = None
    """Arithmetic; bf16-mixed is about twice as fast where the processor or GPU has it."""
    threads: Annotated[int | None, Within(1, 4096)] = None
    """CPU threads of the arithmetic (all cores if not given); a sum's last bits depend on it, so it is recorded."""
    workers: Annotated[int, Within(1, 256)] = 1
    """Threads that prepare patches ahead of the step."""
    log_every: Annotated[int, Within(1, 1e9)] = 10
    """Steps averaged into a line of curves.csv."""
    sample_every: Annotated[int, Within(0, 1e9)] = 500
    """Steps between sample pictures; 0: none but the last."""
    validate_every: Annotated[int, Within(0, 1e9)] = 500
    """Steps between scores on the held-out specimens' patches; 0: none."""
    tensorboard: bool = False
    """Write the curves and sample pictures for TensorBoard too, into the folder tensorboard (extra: tensorboard)."""
    checkpoint_minutes: Annotated[float, Within(0, 1e6)] = 5.0
    """Time between full-state checkpoints, of which the last two are kept."""
    checkpoint_every: Annotated[int, Within(0, 1e9)] = 0
    """Steps between checkpoints, beside the minutes; 0: by time only."""
    finish_now: bool = False
    """Make the stainer from the last checkpoint of a training that was broken off, without a further step."""
    resume: bool = False
    """Continue from the last checkpoint in the output folder; begin where there is none."""

    def __post_init__(self) -> None:
        check_numbers(self)
        if self.fold is not None and self.hold_out:
            raise ValueError("give either hold_out (specimens' names) or fold, not both")
        if self.fold is not None and not 0 <= self.fold < self.folds:
            raise ValueError(f"fold must lie in 0 .. {self.folds - 1}, it is {self.fold}")
        low, high = self.ct_percentiles
        if low >= high:
            raise ValueError(f"ct_percentiles must rise, got {low:g} and {high:g}")
        if self.ct_range is not None and self.ct_range[0] >= self.ct_range[1]:
            raise ValueError(f"ct_range must rise, got {self.ct_range[0]:g} and {self.ct_range[1]:g}")

    def chosen_method(self) -> Method:
        """The method, with the recipe's changes to its weights.

        Raises
        ------
        ValueError
            The method or a loss is not known, or a weight is not a number.
        """
        method: Method = pick(self.method, METHODS)
        return method.reweighted(self.weights)

    def filled(self) -> Settled:
        """The recipe with all that was left out set to what its method and network are usually trained with.

        What the machine and the pairs have to say on it: ``tomostain.learning.planning``.
        """
        method = self.chosen_method()
        net = self.net or method.net
        usual = _USUAL.get(net, _USUAL["resnet"])
        own = {field.name: getattr(self, field.name) for field in fields(self)}
        chosen = {
            "net": net,
            "steps": self.steps or 100_000,
            "batch": self.batch or usual.batch,
            "patch_px": self.patch_px or usual.patch_px,
            "lr": self.lr or usual.lr * (_FINE_TUNING if self.from_stainer else 1.0),
            "clip": method.clip if self.clip is None else self.clip,
            "precision": self.precision or "32-true",
            "ema": method.ema if self.ema is None else self.ema,
            "dye": method.paired and (method.dye if self.dye is None else self.dye),
            "planes": self.planes or method.planes,
        }
        return Settled(**(own | chosen))

    def generator_spec(self) -> NetSpec:
        """The generator's name and arguments; a class of one's own gets ``net_args`` and no others."""
        more = _arguments("net_args", self.net_args)
        net = self.net or self.chosen_method().net
        if ":" in net:
            return NetSpec(net, more)
        if self.tone and not self.chosen_method().paired:
            raise ValueError(f"tone needs the pairs, which {self.method} does not use as pairs; leave it out")
        sizes = {"width": self.width, "depth": self.depth, "norm": self.norm, "up": self.up}
        chosen = {name: value for name, value in sizes.items() if value is not None}
        return NetSpec(net, {**net_defaults(net), **chosen, "tone": self.tone, **more})

    def discriminator_spec(self) -> NetSpec:
        """The discriminator's name and arguments."""
        more = _arguments("discriminator_args", self.discriminator_args)
        if ":" in self.discriminator:
            return NetSpec(self.discriminator, more)
        norm = self.chosen_method().discriminator_norm
        sizes = {"width": self.discriminator_width, "depth": self.discriminator_depth, "norm": norm}
        return NetSpec(self.discriminator, {**sizes, **more})

    def augmentation(self) -> Augment:
        """How patches are varied."""
        if not self.augment:
            return NO_AUGMENT
        return self.variation

    def lasting(self) -> dict[str, Any]:
        """The settings that decide what is learnt, as plain values."""
        return {name: value for name, value in asdict(self).items() if name not in _PASSING}


def _arguments(setting: str, words: tuple[str, ...]) -> dict[str, Any]:
    """``("width=8", "skips=false")`` -> ``{"width": 8, "skips": False}``; values are read as YAML reads them.

    Raises
    ------
    ValueError
        A word is not name=value, or its value is not a number, a text, true, false or null.
    """
    arguments = {}
    for word in words:
        name, equals, text = word.partition("=")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            value = []
        if not (name.isidentifier() and equals and (value is None or isinstance(value, str | int | float | bool))):
            raise ValueError(f"{word!r} in {setting} is not name=value, such as width=8 or skips=false")
        arguments[name] = value
    return arguments


@dataclass(frozen=True)
class Settled(TrainRecipe):
    """A recipe that leaves nothing out: what a training is run with."""

    net: str = "subpixel_unet"
    steps: Annotated[int, Within(1, 1e9)] = 100_000
    batch: Annotated[int, Within(1, 4096)] = 4
    patch_px: Annotated[int, Within(16, 16384)] = 128
    lr: Annotated[float, Within(0, 10, above=True)] = 1e-3
    clip: Annotated[float, Within(0, 1e6)] = 1.0
    precision: Precision = "32-true"
    ema: Annotated[float, SHARE] = 0.999
    dye: bool = True


_FINE_TUNING = 0.5
"""Factor on the usual learning rate where the weights of a stainer are gone on from."""


@dataclass(frozen=True)
class _Usual:
    """What a network is usually trained with."""

    patch_px: int
    batch: int
    lr: float


_USUAL = {
    "subpixel_unet": _Usual(128, 4, 1e-3),
    "resnet": _Usual(256, 2, 2e-4),
    "unet": _Usual(256, 2, 2e-4),
    "reference_resnet": _Usual(256, 1, 2e-4),
    "reference_unet": _Usual(256, 1, 2e-4),
}

SMALL = TrainRecipe(
    method="paired_cyclegan",
    net="resnet",
    ema=0.999,
    dye=True,
    tone=True,
    patch_px=96,
    width=16,
    depth=4,
    discriminator_width=16,
    discriminator_depth=2,
    cycle_every=4,
    lr=1e-3,
    sample_every=0,
)
"""A network and patches that two CPU cores train in minutes."""
