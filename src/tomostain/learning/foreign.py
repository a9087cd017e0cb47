"""Checkpoints of the program of CycleGAN and Pix2Pix: which network they hold, read from names and shapes alone."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tomostain.learning.nets import NetSpec, build_generator

_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
_LARGEST = 4096
_PROGRAM = "pytorch-CycleGAN-and-pix2pix (latest_net_G.pth, or latest_net_G_A.pth of a CycleGAN)"


def read_generator(file: Path, *, repeated: bool = True) -> tuple[NetSpec, int, nn.Module]:
    """The generator in a checkpoint: its spec, its number of CT planes, and the network with its weights.

    Read are ResNet generators of any number of blocks and U-Nets of five levels and more, with batch or instance norm,
    with and without dropout, with or without the ``module.`` of several GPUs. Instance norm's running statistics, which
    older versions of the program store and never use, are left out. With ``repeated`` a network of three channels in
    was trained on grey pictures stored as RGB, and becomes one of one plane: its first weights are summed.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        It is no such checkpoint, or its network does not end in three colours.
    """
    tensors = _tensors(Path(file))
    first = next((tensors[key] for key in ("model.1.weight", "model.model.0.weight") if key in tensors), None)
    if first is None or first.ndim != 4 or not (0 < max(first.shape) <= _LARGEST):
        raise ValueError(f"{file} holds no generator of {_PROGRAM}; its first tensors are {', '.join([*tensors][:3])}")
    for spec, colours in _candidates(tensors, first):
        with torch.device("meta"):
            net = build_generator(spec, first.shape[1], colours)
        wanted = {name: tensor.shape for name, tensor in net.state_dict().items()}
        if wanted == {name: tensor.shape for name, tensor in _without_unused(tensors, wanted).items()}:
            break
    else:
        raise ValueError(
            f"{file} holds a generator of another kind than the ResNet and U-Net of {_PROGRAM} with batch or instance "
            f"norm; it has {len(tensors)} tensors, the first with {first.shape[1]} channels in and {first.shape[0]} out"
        )
    if colours != 3:
        raise ValueError(f"{file} ends in {colours} channels and not in three colours; is it the generator of the CT?")
    kept = _without_unused(tensors, wanted)
    if any(not bool(torch.isfinite(t).all()) for t in kept.values() if t.is_floating_point()):
        raise ValueError(f"{file} holds NaN or infinite weights; take an earlier checkpoint")
    planes = first.shape[1]
    if repeated and planes == 3:
        name = next(key for key in kept if kept[key] is first)
        kept[name], planes = first.sum(dim=1, keepdim=True), 1
    net = build_generator(spec, planes, 3)
    net.load_state_dict(kept)
    return spec, planes, net.eval().requires_grad_(False)


def _tensors(file: Path) -> dict[str, Tensor]:
    if not file.is_file():
        raise FileNotFoundError(f"there is no checkpoint {file}")
    try:
        state: Any = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises whatever its unpickler meets in a damaged or hostile file
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"{file} cannot be read as weights alone ({reason}); it must hold a state_dict of {_PROGRAM}"
        ) from None
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()) or not state:
        raise ValueError(f"{file} holds no state_dict of tensors; it must be one of {_PROGRAM}")
    return {str(name).removeprefix("module."): tensor for name, tensor in state.items()}


def _candidates(tensors: Mapping[str, Tensor], first: Tensor) -> Iterator[tuple[NetSpec, int]]:
    """Networks that the tensors may belong to, with their channels out."""
    width = int(first.shape[0])
    if "model.1.weight" in tensors:
        places = {int(found[1]) for name in tensors if (found := re.match(r"model\.(\d+)\.conv_block\.", name))}
        last = max(int(name.split(".")[1]) for name in tensors if re.fullmatch(r"model\.\d+\.weight", name))
        colours = int(tensors[f"model.{last}.weight"].shape[0])
        for norm in ("instance", "batch"):
            for dropout in (False, True):
                sizes = {"width": width, "depth": len(places), "norm": norm, "up": "transposed", "dropout": dropout}
                yield NetSpec("reference_resnet", sizes | {"clipped": True}), colours
    else:
        depth = 1 + max(name.count("model.1.") + name.count("model.3.") for name in tensors)
        last_bias = tensors.get("model.model.3.bias")
        colours = 0 if last_bias is None else int(last_bias.shape[0])
        for norm in ("instance", "batch"):
            for levels in range(max(5, depth - 3), depth + 4):
                sizes = {"width": width, "depth": levels, "norm": norm, "up": "transposed", "dropout": False}
                yield NetSpec("reference_unet", sizes | {"clipped": True}), colours


def _without_unused(tensors: Mapping[str, Tensor], wanted: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors without statistics that the network has no use for."""
    return {name: t for name, t in tensors.items() if name in wanted or name.rpartition(".")[2] not in _STATISTICS}
