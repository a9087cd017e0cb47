"""What changes while a stainer is trained: networks, their running mean, optimisers and pools of generated images."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Adam

from tomostain.learning.checkpoint import optimiser_tensors, restore_optimiser
from tomostain.learning.losses import ADVERSARIAL
from tomostain.learning.methods import Method
from tomostain.learning.nets import build_discriminator, build_generator
from tomostain.learning.nets.toned import Toned
from tomostain.learning.nets.varied import Varied
from tomostain.learning.recipe import Settled
from tomostain.learning.start import take_over

GENERATORS, DISCRIMINATORS = ("stain_generator", "ct_generator"), ("stain_discriminator", "ct_discriminator")
_BETAS = (0.5, 0.999)


class ImagePool:
    """Generated images kept to be shown to a discriminator again (Shrivastava et al. 2017; Zhu et al. 2017)."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.images: list[Tensor] = []

    def exchange(self, stained: Tensor, rng: np.random.Generator) -> Tensor:
        """(b, c, y, x) -> as many images, each of them new or, once the pool is full, with even odds an older one."""
        given = []
        for image in stained.detach():
            if len(self.images) < self.size:
                self.images.append(image)
            elif self.size and rng.random() < 0.5:
                place = int(rng.integers(self.size))
                image, self.images[place] = self.images[place], image
            given.append(image)
        return torch.stack(given).contiguous(memory_format=torch.channels_last)


class State:
    """All that a checkpoint must hold for a training to go on as if nothing had happened.

    ``nets`` has the stain generator and, as the method needs them, the CT generator (stain -> CT) and the two
    discriminators; ``averaged`` is the stain generator's running mean, which becomes the stainer.
    """

    def __init__(
        self,
        recipe: Settled,
        method: Method,
        planes: int,
        device: torch.device,
        start: nn.Module | None = None,
    ) -> None:
        spec, discriminator, weights = recipe.generator_spec(), recipe.discriminator_spec(), method.losses()
        self.nets: dict[str, nn.Module] = {"stain_generator": build_generator(spec, planes, 3)}
        if start is not None:
            take_over(self.nets["stain_generator"], start)
        if method.there_and_back:
            plain = {} if ":" in spec.name else {"bounded": method.bounded_ct, "tone": False}
            self.nets["ct_generator"] = build_generator(spec, 3, 1, **plain)
        if set(ADVERSARIAL) & set(weights):
            self.nets["stain_discriminator"] = build_discriminator(discriminator, 3 + planes * method.conditional)
        if "adversarial_ct" in weights:
            self.nets["ct_discriminator"] = build_discriminator(discriminator, 1)
        if recipe.discriminator_augment:
            self.nets |= {name: Varied(self.nets[name]) for name in DISCRIMINATORS if name in self.nets}
        for net in self.nets.values():
            net.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.averaged = copy.deepcopy(self.nets["stain_generator"]).requires_grad_(False).eval()
        self.optimisers = {
            name: Adam(self.parameters(names), lr=recipe.lr, betas=_BETAS)
            for name, names in (("generators", GENERATORS), ("discriminators", DISCRIMINATORS))
            if self.parameters(names)
        }
        self.pools = {
            name: ImagePool(recipe.pool if method.pooled else 0) for name in DISCRIMINATORS if name in self.nets
        }

    def set_tone(self, colours: Tensor) -> None:
        """Let a toned stain_generator begin at these colours, (3, TONE_KNOTS) in [-1, 1]."""
        for net in (self.nets["stain_generator"], self.averaged):
            if isinstance(net, Toned):
                net.set_tone(colours)

    def parameters(self, names: tuple[str, ...]) -> list[nn.Parameter]:
        """The parameters of those of the named networks that there are."""
        return [parameter for name in names if name in self.nets for parameter in self.nets[name].parameters()]

    def average(self, step: int, memory: float) -> None:
        """Draw the running mean towards the stain_generator; the first steps are forgotten sooner."""
        decay = min(memory, (1 + step) / (10 + step))
        for mean, now in zip(
            self.averaged.state_dict().values(), self.nets["stain_generator"].state_dict().values(), strict=True
        ):
            if mean.is_floating_point():
                mean.lerp_(now, 1.0 - decay)
            else:
                mean.copy_(now)

    def shared_tensors(self) -> dict[str, Tensor]:
        """Everything that is the same in each process."""
        nets = {**self.nets, "averaged": self.averaged}
        tensors = {f"{name}.{key}": tensor for name, net in nets.items() for key, tensor in net.state_dict().items()}
        for name, optimiser in self.optimisers.items():
            tensors |= optimiser_tensors(optimiser, name)
        return tensors

    def own_tensors(self) -> dict[str, Tensor]:
        """The pools of this process."""
        return {f"{name}.{i}": image for name, pool in self.pools.items() for i, image in enumerate(pool.images)}

    def restore(self, shared: Mapping[str, Tensor], own: Mapping[str, Tensor], device: torch.device) -> None:
        """Take back what ``shared_tensors`` and ``own_tensors`` gave."""
        for name, net in {**self.nets, "averaged": self.averaged}.items():
            net.load_state_dict({key: shared[f"{name}.{key}"] for key in net.state_dict()})
        for name, optimiser in self.optimisers.items():
            restore_optimiser(optimiser, shared, name)
        for name, pool in self.pools.items():
            count = sum(key.startswith(f"{name}.") for key in own)
            pool.images = [own[f"{name}.{i}"].to(device) for i in range(count)]
