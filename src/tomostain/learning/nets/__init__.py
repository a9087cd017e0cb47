"""Networks by name: a plug is one class and one line in a table; ``"package.module:Class"`` works as well."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from torch import nn

from tomostain._imports import pick
from tomostain.learning.nets.layers import Generator, Norm, Up
from tomostain.learning.nets.patchgan import PatchGAN
from tomostain.learning.nets.reference import ReferenceResNet, ReferenceUNet
from tomostain.learning.nets.resnet import ResNet
from tomostain.learning.nets.subpixel_unet import SubpixelUNet
from tomostain.learning.nets.toned import Toned
from tomostain.learning.nets.unet import UNet

GENERATORS: Mapping[str, Any] = MappingProxyType(
    {
        "subpixel_unet": SubpixelUNet,
        "resnet": ResNet,
        "unet": UNet,
        "reference_resnet": ReferenceResNet,
        "reference_unet": ReferenceUNet,
    }
)
"""By name: Module(in_channels, out_channels, **args) that keeps the contract of ``Generator``."""

DISCRIMINATORS: Mapping[str, Any] = MappingProxyType({"patchgan": PatchGAN})
"""By name: Module(in_channels, **args), (b, c, y, x) -> verdicts of any shape."""

__all__ = [
    "DISCRIMINATORS",
    "GENERATORS",
    "Generator",
    "NetSpec",
    "Norm",
    "Up",
    "build_discriminator",
    "build_generator",
    "net_defaults",
]


@dataclass(frozen=True)
class NetSpec:
    """A network by name and arguments: all that is needed, beside its weights, to build it again."""

    name: str
    args: Mapping[str, Any] = field(default_factory=dict)


def net_defaults(name: str) -> dict[str, Any]:
    """The sizes that a generator of ours has where none are chosen: width, depth, norm, up; {} for unknown names."""
    if name not in GENERATORS:
        return {}
    parameters = inspect.signature(GENERATORS[name]).parameters
    return {key: parameters[key].default for key in ("width", "depth", "norm", "up")}


def build_generator(
    spec: NetSpec, in_channels: int, out_channels: int, *, trust: bool = True, **more: Any
) -> nn.Module:
    """A generator with fresh weights; the argument ``tone`` wraps it in ``Toned``.

    ``trust`` False refuses names that would import code from elsewhere.

    Raises
    ------
    ValueError
        The name or an argument is unknown, or the network does not say its halo and stride.
    """
    make = pick(spec.name, GENERATORS, trust=trust)
    arguments = {**spec.args, **more}
    toned = bool(arguments.pop("tone", False))
    plain = NetSpec(spec.name, arguments)
    if toned:
        net = _build(plain, make, in_channels + out_channels, out_channels, bounded=False)
    else:
        net = _build(plain, make, in_channels, out_channels)
    missing = [name for name in ("halo_px", "stride_px", "tile_exact") if not hasattr(net, name)]
    if missing:
        raise ValueError(
            f"generator {spec.name!r} must declare {', '.join(missing)} as nets.layers.Generator describes"
        )
    return Toned(net, in_channels, out_channels) if toned else net


def build_discriminator(spec: NetSpec, in_channels: int) -> nn.Module:
    """A discriminator with fresh weights.

    Raises
    ------
    ValueError
        The name or an argument is unknown.
    """
    return _build(spec, pick(spec.name, DISCRIMINATORS), in_channels)


def _build(spec: NetSpec, make: Any, *channels: int, **more: Any) -> nn.Module:
    try:
        net = make(*channels, **{**spec.args, **more})
    except TypeError as error:
        raise ValueError(f"network {spec.name!r} cannot be built with {dict(spec.args)}: {error}") from None
    if not isinstance(net, nn.Module):
        raise ValueError(f"network {spec.name!r} built a {type(net).__name__}, not a torch Module")
    return net
