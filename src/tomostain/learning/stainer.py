"""A Stainer turns CT planes into colours: a network, the range of CT it was trained on, and its history.

On disk it is ``weights.safetensors`` and ``stainer.json``; reading them runs no code of theirs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.torch import load as tensors_from_bytes
from safetensors.torch import save as tensors_to_bytes
from torch import Tensor, nn

from tomostain.learning.nets import NetSpec, build_generator
from tomostain.learning.ranges import CTRange, RGBRange
from tomostain.runs import write_text_atomically

FORMAT = "tomostain-stainer"
_LARGEST_ARGUMENT = 4096
"""No width or depth in a stainer.json may be larger: a lying file must not exhaust the memory."""


@dataclass(frozen=True, eq=False)
class Stainer:
    """CT in its own values -> virtual stain.

    ``net`` is in eval mode and gets (b, planes, y, x) unit values. ``um_per_px`` is the pixel size it was trained at.
    """

    net: nn.Module
    spec: NetSpec
    ct_range: CTRange
    stain: str
    um_per_px: float
    planes: int = 1
    history: Mapping[str, Any] = field(default_factory=dict)

    @property
    def halo_px(self) -> int:
        """How far around a pixel the net looks; a multiple of ``stride_px``."""
        return int(self.net.halo_px)  # type: ignore[arg-type]

    @property
    def stride_px(self) -> int:
        """Tiles must begin at a multiple of this, counted from the plane's corner."""
        return int(self.net.stride_px)  # type: ignore[arg-type]

    @property
    def tile_exact(self) -> bool:
        """Whether a pixel gets the same colour in any tile that shows its whole halo."""
        return bool(self.net.tile_exact)

    @property
    def device(self) -> torch.device:
        """Where the net computes."""
        return next(self.net.parameters()).device

    def on(self, device: str) -> Stainer:
        """The same stainer, computing on ``cpu``, ``cuda``, ``mps`` or ``auto``: a GPU where there is one."""
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        return replace(self, net=self.net.to(device))

    def __call__(self, ct: npt.NDArray[np.floating[Any]], *, tile_px: int | None = 1024) -> npt.NDArray[np.uint8]:
        """Stain one plane: ct (planes, y, x) in CT values, or (y, x) for one plane -> (y, x, 3) uint8.

        The plane is mirrored at its borders. A tile-exact net is run in tiles of ``tile_px`` (a multiple of its stride;
        None: the whole plane at once), which bounds the memory and changes no pixel; others see the plane whole.

        Raises
        ------
        ValueError
            The number of planes is not what the net was trained on, or a value is not finite.
        """
        padded = self.padded(ct)
        halo = self.halo_px
        rows, columns = padded.shape[1] - 2 * halo, padded.shape[2] - 2 * halo
        tile = max(rows, columns) if tile_px is None or not self.tile_exact else tile_px
        if tile < max(rows, columns) and tile % self.stride_px:
            raise ValueError(f"tile_px must be a multiple of the network's stride {self.stride_px}, it is {tile_px}")
        painted = np.empty((rows, columns, 3), dtype=np.uint8)
        for y in range(0, rows, tile):
            for x in range(0, columns, tile):
                bottom, right = min(y + tile, rows), min(x + tile, columns)
                outer = padded[:, y : bottom + 2 * halo, x : right + 2 * halo]
                painted[y:bottom, x:right] = self.paint_rgb(outer)
        return painted

    def padded(self, ct: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float32]:
        """The plane with a mirrored halo: (planes, y, x) or (y, x) -> (planes, y + 2 halo, x + 2 halo) float32.

        Raises
        ------
        ValueError
            The number of planes is not what the net was trained on.
        """
        slab = np.asarray(ct, dtype=np.float32)
        slab = slab[None] if slab.ndim == 2 else slab
        if slab.ndim != 3 or slab.shape[0] != self.planes:
            raise ValueError(f"this stainer takes {self.planes} CT plane(s) (planes, y, x); this array is {ct.shape}")
        return np.pad(slab, ((0, 0), (self.halo_px,) * 2, (self.halo_px,) * 2), mode="reflect")

    def paint(self, ct_padded: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Stain a tile: CT values (planes, y + 2 halo, x + 2 halo) -> (y, x, 3) float32 in [-1, 1].

        A tile that begins at a multiple of the stride gets what the whole plane would get there.

        Raises
        ------
        ValueError
            A CT value is not finite.
        """
        if not np.isfinite(ct_padded).all():
            raise ValueError("the CT has NaN or infinite values here; mask or mend them before staining")
        halo, stride = self.halo_px, self.stride_px
        rows, columns = ct_padded.shape[1] - 2 * halo, ct_padded.shape[2] - 2 * halo
        fill = [(0, -side % stride) for side in ct_padded.shape[1:]]
        unit = self.ct_range.to_unit(np.pad(ct_padded, [(0, 0), *fill], mode="edge"))
        image = torch.from_numpy(unit)[None].to(self.device, memory_format=torch.channels_last)
        with torch.inference_mode():
            painted: Tensor = self.net(image)[0, :, halo : halo + rows, halo : halo + columns]
        return np.ascontiguousarray(painted.permute(1, 2, 0).float().cpu().numpy())

    def paint_rgb(self, ct_padded: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
        """Stain a tile as ``paint`` does: (planes, y + 2 halo, x + 2 halo) -> (y, x, 3) uint8, rounded half up."""
        return RGBRange.from_unit(self.paint(ct_padded))

    def out_of_range(self, ct: npt.NDArray[np.floating[Any]]) -> float:
        """The share of CT values that no training pixel had; there the stainer guesses."""
        return self.ct_range.outside(ct)

    def save(self, folder: Path) -> Path:
        """Write ``weights.safetensors`` and, last, ``stainer.json`` into a folder; returns the folder."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        weights = tensors_to_bytes({name: t.detach().cpu().contiguous() for name, t in self.net.state_dict().items()})
        (folder / "weights.safetensors").write_bytes(weights)
        text = {
            "format": FORMAT,
            "version": 1,
            "stain": self.stain,
            "um_per_px": self.um_per_px,
            "planes": self.planes,
            "net": {"name": self.spec.name, "args": dict(self.spec.args)},
            "halo_px": self.halo_px,
            "stride_px": self.stride_px,
            "tile_exact": self.tile_exact,
            "ct_range": self.ct_range.to_json(),
            "rgb_range": "uint8 sRGB; 0 is -1, 255 is 1",
            "weights": {"file": "weights.safetensors", "sha256": hashlib.sha256(weights).hexdigest()},
            "history": dict(self.history),
        }
        write_text_atomically(folder / "stainer.json", json.dumps(text, indent=1) + "\n")
        return folder

    @classmethod
    def load(cls, folder: Path, *, trust: bool = False) -> Stainer:
        """Read what ``save`` wrote. ``trust`` allows a network that is not ours to be imported by its name.

        Raises
        ------
        ValueError
            A file is missing, truncated or altered, or the network would import code from elsewhere (pass trust=True).
        """
        folder = Path(folder)
        about_path, weights_path = folder / "stainer.json", folder / "weights.safetensors"
        for path in (about_path, weights_path):
            if not path.is_file():
                raise ValueError(f"{folder} is no stainer: {path.name} is missing; `tomostain train` writes one")
        try:
            about = json.loads(about_path.read_text(encoding="utf-8"))
            if not isinstance(about, dict) or about.get("format") != FORMAT:
                raise ValueError("it does not call itself a stainer")
            if about["version"] != 1:
                raise ValueError(f"its version is {about['version']}, this program reads version 1")
            spec = NetSpec(str(about["net"]["name"]), dict(about["net"]["args"]))
            _refuse_giants(spec)
            ct_range, planes = CTRange(**about["ct_range"]), int(about["planes"])
            stain, um_per_px = str(about["stain"]), float(about["um_per_px"])
            digest, history = str(about["weights"]["sha256"]), dict(about["history"])
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"{about_path} cannot be read as a stainer ({_plain(error)}); train again") from None
        raw = weights_path.read_bytes()
        if hashlib.sha256(raw).hexdigest() != digest:
            raise ValueError(f"{weights_path} is truncated or altered: its SHA-256 is not the one in stainer.json")
        try:
            with torch.device("meta"):
                net = build_generator(spec, planes, 3, trust=trust)
            net.load_state_dict(tensors_from_bytes(raw), strict=True, assign=True)
        except (SafetensorError, RuntimeError) as error:
            raise ValueError(
                f"{weights_path} does not hold the weights of this version's {spec.name} ({_plain(error)}); train again"
            ) from None
        net = net.eval().requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return cls(net, spec, ct_range, stain, um_per_px, planes, history)


def _refuse_giants(spec: NetSpec) -> None:
    for name, value in spec.args.items():
        if isinstance(value, int | float) and not 0 <= value <= _LARGEST_ARGUMENT:
            raise ValueError(f"its network's {name} is {value}")


def _plain(error: BaseException) -> str:
    """The first line of an error, or the missing key's name."""
    return f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error).partition("\n")[0]
