"""LPIPS v0.1: how different two pictures look, from an ImageNet network and the authors' linear heads.

Zhang, Isola, Efros, Shechtman, Wang, "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", 2018.
The weights are published ones, read from a file and checked against a known result; without them LPIPS is not computed.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import pooch
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from tomostain.runs import whole

Net = Literal["alex", "squeeze"]

SMALLEST_PX = 32
"""The shortest image edge from which every layer still has a pixel."""

TAPS: Mapping[Net, tuple[int, ...]] = MappingProxyType(
    {"alex": (1, 4, 7, 9, 11), "squeeze": (1, 4, 7, 9, 10, 11, 12)},
)
"""Layers of the features after which the two pictures are compared."""

ADDRESSES: Mapping[Net, tuple[str, str]] = MappingProxyType(
    {
        "alex": (
            "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
            "https://raw.githubusercontent.com/richzhang/PerceptualSimilarity/master/lpips/weights/v0.1/alex.pth",
        ),
        "squeeze": (
            "https://download.pytorch.org/models/squeezenet1_1-b8a52dc0.pth",
            "https://raw.githubusercontent.com/richzhang/PerceptualSimilarity/master/lpips/weights/v0.1/squeeze.pth",
        ),
    }
)
"""Where torchvision's ImageNet weights and the LPIPS authors' heads can be downloaded."""

_PROBE_RESULTS: Mapping[Net, float] = MappingProxyType({"alex": 0.205181, "squeeze": 0.296466})
"""LPIPS of ``_probe()`` with the published weights; measured with those that give the authors' golden values."""

_CHANNELS: Mapping[Net, tuple[int, ...]] = MappingProxyType(
    {"alex": (64, 192, 384, 256, 256), "squeeze": (64, 128, 256, 384, 384, 512, 512)},
)


class _Fire(nn.Module):
    """SqueezeNet's block: squeeze to few channels, expand by 1x1 and 3x3 convolutions side by side."""

    def __init__(self, channels: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, squeezed, 1)
        self.expand1x1 = nn.Conv2d(squeezed, expanded, 1)
        self.expand3x3 = nn.Conv2d(squeezed, expanded, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.squeeze(x))
        return torch.cat([functional.relu(self.expand1x1(x)), functional.relu(self.expand3x3(x))], dim=1)


class _Head(nn.Module):
    """One linear head; named so that its key is the authors' (``linI.model.1.weight``)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.model = nn.Sequential(nn.Identity(), nn.Conv2d(channels, 1, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.model(x)
        return y


def _alexnet() -> nn.Sequential:
    return nn.Sequential(
        *(nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(), nn.Conv2d(384, 256, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(256, 256, 3, padding=1), nn.ReLU()),
    )


def _squeezenet() -> nn.Sequential:
    return nn.Sequential(
        *(nn.Conv2d(3, 64, 3, stride=2), nn.ReLU(), nn.MaxPool2d(3, 2, ceil_mode=True)),
        *(_Fire(64, 16, 64), _Fire(128, 16, 64), nn.MaxPool2d(3, 2, ceil_mode=True)),
        *(_Fire(128, 32, 128), _Fire(256, 32, 128), nn.MaxPool2d(3, 2, ceil_mode=True)),
        *(_Fire(256, 48, 192), _Fire(384, 48, 192), _Fire(384, 64, 256), _Fire(512, 64, 256)),
    )


class Lpips(nn.Module):
    """The LPIPS distance with one of its two small networks; ``Lpips.load`` gives it the published weights.

    Called with two (b, 3, y, x) float tensors in [-1, 1] it returns (b,) distances, 0 where the pictures are equal.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, net: Net = "alex") -> None:
        super().__init__()
        if net not in TAPS:
            raise ValueError(f"LPIPS comes with the networks {', '.join(TAPS)}, not with {net!r}")
        self.taps = TAPS[net]
        self.features = _alexnet() if net == "alex" else _squeezenet()
        for i, channels in enumerate(_CHANNELS[net]):
            self.add_module(f"lin{i}", _Head(channels))
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False).eval()

    @classmethod
    def load(cls, net: Net = "alex", folder: Path | None = None) -> Lpips:
        """The metric with the published weights, from ``folder`` or from where ``find_weights`` finds them.

        Raises
        ------
        FileNotFoundError
            There are no weights; the message says how to get them.
        ValueError
            The file is damaged, holds another network, or does not give the result of the published weights.
        """
        path = find_weights(net, folder)
        metric = cls(net)
        try:
            metric.load_state_dict(load_file(path))
        except (SafetensorError, RuntimeError, OSError) as error:
            reason = str(error).partition("\n")[0]
            raise ValueError(f"{path} does not hold the LPIPS weights of {net} ({reason}); fetch them again") from None
        result, known = metric(*_probe()).item(), _PROBE_RESULTS[net]
        if abs(result - known) > 1e-4:
            raise ValueError(
                f"{path} is not the published LPIPS v0.1 with {net}: its test pictures give {result:.6f} instead of "
                f"{known:.6f}; fetch it again with `tomostain lpips-weights`"
            )
        return metric

    def forward(self, pred: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        """Distances (b,) of (b, 3, y, x) pictures in [-1, 1], where ``weight`` (b, 1, y, x) in [0, 1] counts them.

        Pixels of weight 0 are mid grey in both pictures; each layer's map is averaged with the weight's area average at
        that layer's size. With equal weights this is the published metric.
        """
        if min(pred.shape[-2:]) < SMALLEST_PX:
            size = " x ".join(str(n) for n in pred.shape[-2:])
            raise ValueError(f"LPIPS needs images of at least {SMALLEST_PX} x {SMALLEST_PX} pixels, these are {size}")
        if weight is not None:
            outside = weight == 0
            pred, target = pred.masked_fill(outside, 0.0), target.masked_fill(outside, 0.0)
        a, b = (pred - self.shift) / self.scale, (target - self.shift) / self.scale
        distance = pred.new_zeros(len(pred))
        head = 0
        for i, layer in enumerate(self.features):
            a, b = layer(a), layer(b)
            if i in self.taps:
                apart = self.get_submodule(f"lin{head}")((_unit(a) - _unit(b)) ** 2)
                distance = distance + _mean(apart, weight)
                head += 1
        return distance


def _unit(x: Tensor) -> Tensor:
    return x / (x.square().sum(dim=1, keepdim=True).sqrt() + 1e-10)


def _mean(values: Tensor, weight: Tensor | None) -> Tensor:
    if weight is None:
        return values.mean(dim=(1, 2, 3))
    there = functional.adaptive_avg_pool2d(weight.to(values.dtype), (values.shape[-2], values.shape[-1]))
    return (values * there).sum(dim=(1, 2, 3)) / there.sum(dim=(1, 2, 3))


def _probe() -> tuple[Tensor, Tensor]:
    """Two fixed 64 px pictures whose distance identifies the published weights."""
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    waves = [torch.sin(0.21 * x + 0.13 * k * y) * torch.cos(0.17 * y - 0.05 * k * x) for k in range(1, 4)]
    first = torch.stack(waves)[None]
    return first, first.flip(-1).roll(7, dims=-2) * 0.8 + 0.1


def user_folder() -> Path:
    """Where ``tomostain lpips-weights`` keeps the weights for this user: the cache folder of the system."""
    return Path(pooch.os_cache("tomostain")) / "lpips"


def find_weights(net: Net, folder: Path | None = None) -> Path:
    """The file ``NET.safetensors`` in ``folder``, else in the folder that TOMOSTAIN_LPIPS names, else in the cache.

    Raises
    ------
    FileNotFoundError
        It is not there.
    """
    name = f"{net}.safetensors"
    place = Path(folder or os.environ.get("TOMOSTAIN_LPIPS") or user_folder())
    if (place / name).is_file():
        return place / name
    backbone, heads = ADDRESSES[net]
    raise FileNotFoundError(
        f"LPIPS needs the published weights {name}, which are not in {place}. Either run "
        f"`tomostain lpips-weights --download --net {net}` once, where there is internet; or bring the two files "
        f"{backbone} and {heads} here and run `tomostain lpips-weights {Path(backbone).name} {Path(heads).name} "
        f"--net {net}`; or leave LPIPS out with `--metrics ssim psnr`"
    )


def assemble(backbone_state: Path, heads_state: Path, out: Path, *, net: Net = "alex") -> Path:
    """Make our ``NET.safetensors`` from torchvision's ImageNet weights and the LPIPS authors' heads (both .pth).

    Only tensors are read from the two files, code in them is never run.

    Raises
    ------
    ValueError
        A file cannot be read, or does not hold the weights of ``net``.
    """
    wanted = Lpips(net).state_dict()
    found = {**_tensors(Path(backbone_state)), **_tensors(Path(heads_state))}
    for key, like in wanted.items():
        source = heads_state if key.startswith("lin") else backbone_state
        if key not in found or found[key].shape != like.shape:
            raise ValueError(f"{source} has no {key} of shape {tuple(like.shape)}: not the file for LPIPS with {net}")
    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    with whole(out) as part:
        save_file({key: found[key].float().contiguous() for key in wanted}, part)
    return out


def download(net: Net, folder: Path, *, addresses: tuple[str, str] | None = None) -> tuple[Path, Path]:
    """Download torchvision's ImageNet weights and the LPIPS authors' heads into ``folder``.

    ``addresses`` are two URLs to take instead of ``ADDRESSES[net]`` (a mirror).

    Raises
    ------
    ConnectionError
        An address cannot be reached.
    """
    files = []
    for kind, address in zip(("backbone", "heads"), addresses or ADDRESSES[net], strict=True):
        name = f"{net}_{kind}.pth"
        try:
            file = pooch.retrieve(address, None, fname=name, path=folder, progressbar=sys.stderr.isatty())
        except (OSError, ValueError) as error:  # those of requests are OSErrors
            raise ConnectionError(
                f"{address} cannot be downloaded ({error}); download it elsewhere and give the file to "
                "`tomostain lpips-weights BACKBONE HEADS`"
            ) from None
        files.append(Path(file))
    return files[0], files[1]


def _tensors(path: Path) -> dict[str, Tensor]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} does not exist; download it first") from None
    except Exception as error:  # torch.load raises whatever its unpickler meets in a damaged file
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{path} is not a readable .pth file of weights ({reason}); download it again") from None
    return {key: value for key, value in dict(state).items() if isinstance(value, Tensor)}
