"""A Stainer turns CT planes into colours: a network, the range of CT it was trained on, and its history.

On disk it is ``weights.safetensors`` and ``stainer.json``; reading them runs no code of theirs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
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

from tomostain.images.anchors import Anchors, GreyMap, fit_scale
from tomostain.images.grey_values import GreyValues
from tomostain.images.tiling import tiles
from tomostain.io.units import PLAUSIBLE_VOXEL_UM, is_length
from tomostain.learning.nets import GENERATORS, NetSpec, build_generator
from tomostain.learning.nets.steady import SteadyConvolutions
from tomostain.learning.ranges import CTRange, RGBRange
from tomostain.pairs.recipe import MOST_PLANES
from tomostain.runs import write_text_atomically

FORMAT = "tomostain-stainer"
ALL_SPECIMENS = "all specimens"
_SHIPPED = Path(__file__).parents[1] / "stainers"
_LARGEST_ARGUMENT = 4096
"""No width or depth in a stainer.json may be larger: a lying file must not exhaust the memory."""
_SMALLEST_STRIDES = 4
"""A net's coarsest level must hold some pixels for its mirrored padding to have something to mirror."""


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
    sha256: str = ""
    """Of its description, which holds that of its weights, as they were loaded; empty for one that was not loaded."""
    grey_values: Mapping[str, GreyValues] = field(default_factory=dict)
    """Grey values of each specimen that it was trained on."""
    anchors: Anchors | None = None
    """The median of these specimens' grey values of soft tissue and bone; None where they were not found."""
    within_um: tuple[float, float] | None = None
    """Smallest and largest pixel size it was trained at, where it was trained at several."""

    def __repr__(self) -> str:
        learnt = len(self.history.get("specimens") or [])
        return f"<Stainer {self.stain}: {self.spec.name}, {self.um_per_px:g} um, specimens trained on: {learnt}>"

    @property
    def scale(self) -> str:
        """The pixel size it was trained at, in words."""
        return f"{self.um_per_px:g} um" if self.within_um is None else "{:g} to {:g} um".format(*self.within_um)

    @property
    def simulated(self) -> str | None:
        """Which of the specimens that it was trained on are phantoms, in words; None where none is."""
        phantoms, trained_on = self.history.get("simulated") or [], self.history.get("specimens") or []
        if not phantoms:
            return None
        return ALL_SPECIMENS if len(phantoms) == len(trained_on) else f"specimens {', '.join(phantoms)}"

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

        A tile-exact net is run in tiles of ``tile_px``, which bounds the memory and changes no pixel (None: the whole
        plane at once); others see the plane whole. The plane ends where it ends: the net pads its own layers there.

        Raises
        ------
        ValueError
            The number of planes is not what the net was trained on, or a value is not finite.
        """
        slab = np.asarray(ct, dtype=np.float32)
        slab = slab[None] if slab.ndim == 2 else slab
        if slab.ndim != 3 or slab.shape[0] != self.planes:
            raise ValueError(f"this stainer takes {self.planes} CT plane(s) (planes, y, x); this array is {ct.shape}")
        rows, columns = slab.shape[1:]
        tile = max(rows, columns) if tile_px is None or not self.tile_exact else tile_px
        stained = np.empty((rows, columns, 3), dtype=np.uint8)
        halo, align = (self.halo_px,) * 2, (self.stride_px,) * 2
        for part in tiles((rows, columns), (tile, tile), halo=halo, align=align):
            stained[part.core] = self.predict_rgb(slab[(slice(None), *part.outer)])[part.inner]
        return stained

    def taken_px(self, side: int) -> int:
        """The length of a tile's side as the net takes it: a multiple of its stride, and at least four of them.

        A net that can do with fewer says so as ``least_strides``.
        """
        least = int(getattr(self.net, "least_strides", _SMALLEST_STRIDES))
        return max(-(-side // self.stride_px), least) * self.stride_px

    def prepared(self, ct: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float32]:
        """The net's input for CT values (..., planes, y, x): unit values, float32, of lengths the net can take.

        Rows and columns are repeated at the far ends up to the next multiple of ``stride_px``, and to four of them.

        Raises
        ------
        ValueError
            A CT value is not finite.
        """
        if not np.isfinite(ct).all():
            raise ValueError("the CT has NaN or infinite values here; mask or replace them before staining")
        fill = [(0, self.taken_px(side) - side) for side in ct.shape[-2:]]
        values = np.pad(ct, [(0, 0)] * (ct.ndim - 2) + fill, mode="edge") if np.any(fill) else ct
        return self.ct_range.to_unit(values)

    def predict(self, ct: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Stain a tile: CT values (planes, y, x) -> (y, x, 3) float32 in [-1, 1].

        A tile that begins at a multiple of the stride gets what the whole plane would get, as far as its halo is shown.

        Raises
        ------
        ValueError
            A CT value is not finite.
        """
        rows, columns = ct.shape[1:]
        image = torch.from_numpy(self.prepared(ct))[None].to(self.device, memory_format=torch.channels_last)
        with torch.inference_mode():
            stained = self.run(image)[0, :, :rows, :columns]
        return np.ascontiguousarray(stained.permute(1, 2, 0).float().cpu().numpy())

    def run(self, image: Tensor) -> Tensor:
        """The net on unit values (b, planes, y, x), each pixel with the same bits whatever the image's size."""
        with SteadyConvolutions():
            stained: Tensor = self.net(image)
        return stained

    def predict_rgb(self, ct: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
        """Stain a tile as ``predict`` does: (planes, y, x) -> (y, x, 3) uint8, rounded half up."""
        return RGBRange.from_unit(self.predict(ct))

    def out_of_range(self, ct: npt.NDArray[np.floating[Any]]) -> float:
        """The share of CT values outside the range of training, whose colours have not been tested."""
        return self.ct_range.outside(ct)

    def scale_of(
        self,
        new: GreyValues | None,
        candidates: Sequence[Anchors],
        name: str,
        *,
        anchors: Anchors | None = None,
        any_values: bool = False,
    ) -> GreyMap:
        """The map of a CT's grey values onto those that it was trained on (``images.anchors.fit_scale``).

        Raises
        ------
        ValueError
            They are certainly others, cannot be mapped, and ``any_values`` is false.
        """
        known = self.grey_values
        return fit_scale(known, self.anchors, new, candidates, name, given=anchors, any_values=any_values)

    def save(self, folder: Path, *, half: bool = False) -> Path:
        """Write ``weights.safetensors`` and, last, ``stainer.json`` into a folder; returns the folder.

        ``half`` stores the weights in half precision, half the size; they are read as float32.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {name: t.detach().cpu().contiguous() for name, t in self.net.state_dict().items()}
        if fault := _not_finite(tensors):
            raise ValueError(f"{folder} is not written: {fault}; train again with a lower learning rate (lr)")
        weights = tensors_to_bytes({name: t.half() for name, t in tensors.items()} if half else tensors)
        (folder / "weights.safetensors").write_bytes(weights)
        text = {
            "format": FORMAT,
            "version": 1,
            "stain": self.stain,
            "um_per_px": self.um_per_px,
            "planes": self.planes,
            "within_um": self.within_um,
            "net": {"name": self.spec.name, "args": dict(self.spec.args)},
            "halo_px": self.halo_px,
            "stride_px": self.stride_px,
            "tile_exact": self.tile_exact,
            "ct_range": self.ct_range.to_json(),
            "rgb_range": "uint8 sRGB; 0 is -1, 255 is 1",
            "weights": {"file": "weights.safetensors", "sha256": hashlib.sha256(weights).hexdigest()},
            "history": dict(self.history),
            "grey_values": {name: values.to_json() for name, values in self.grey_values.items()},
            "anchors": self.anchors.to_json() if self.anchors else None,
        }
        write_text_atomically(folder / "stainer.json", json.dumps(text, indent=1) + "\n")
        return folder

    @classmethod
    def load(cls, folder: Path, *, trust: bool = False) -> Stainer:
        """Read what ``save`` wrote. ``trust`` allows a network from outside tomostain to be imported by its name.

        Raises
        ------
        ValueError
            A file is missing, truncated or altered, or the network would import code from elsewhere (pass trust=True).
        """
        folder = stainer_folder(folder)
        about_path, weights_path = folder / "stainer.json", folder / "weights.safetensors"
        for path in (about_path, weights_path):
            if not path.is_file():
                raise ValueError(
                    f"{folder} is not a stainer: {path.name} is missing; `tomostain train` writes one, "
                    f"and these are shipped: {', '.join(shipped())}"
                )
        try:
            text = about_path.read_bytes()
            about = json.loads(text.decode("utf-8"))
            if not isinstance(about, dict) or about.get("format") != FORMAT:
                raise ValueError("it does not call itself a stainer")
            if about["version"] != 1:
                raise ValueError(f"its version is {about['version']}, this program reads version 1")
            spec = NetSpec(str(about["net"]["name"]), dict(about["net"]["args"]))
            _refuse_giants(spec)
            for key, kind in (("planes", int), ("stain", str), ("um_per_px", (int, float))):
                if not isinstance(about[key], kind) or isinstance(about[key], bool):
                    raise ValueError(f"its {key} is {about[key]!r}")
            ct_range, planes = CTRange(**about["ct_range"]), about["planes"]
            stain, um_per_px = about["stain"], float(about["um_per_px"])
            if not is_length(um_per_px, within=PLAUSIBLE_VOXEL_UM) or not 1 <= planes <= MOST_PLANES:
                raise ValueError(f"it says {planes} planes and {um_per_px:g} um per pixel, which cannot be")
            if not stain.isprintable() or len(stain) > 120:
                raise ValueError(f"its stain is {stain[:40]!r}")
            within_um = about.get("within_um") and tuple(float(edge) for edge in about["within_um"])
            if within_um and not (len(within_um) == 2 and 0 < within_um[0] <= within_um[1] < float("inf")):
                raise ValueError(f"its within_um is {within_um}")
            digest, history = str(about["weights"]["sha256"]), dict(about["history"])
            grey_values = {
                str(name): GreyValues.from_json(values) for name, values in dict(about.get("grey_values", {})).items()
            }
            anchors = Anchors(*map(float, about["anchors"])) if about.get("anchors") else None
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"{about_path} cannot be read as a stainer ({_plain(error)}); train again") from None
        raw = weights_path.read_bytes()
        if hashlib.sha256(raw).hexdigest() != digest:
            raise ValueError(f"{weights_path} is truncated or altered: its SHA-256 is not the one in stainer.json")
        try:
            # a network of the package is built without memory; one from elsewhere may keep tensors that are not weights
            with torch.device("meta" if spec.name in GENERATORS else "cpu"):
                net = build_generator(spec, planes, 3, trust=trust)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{about_path} cannot be read as a stainer: {_plain(error)}") from None
        try:
            tensors = {name: t.float() if t.dtype == torch.half else t for name, t in tensors_from_bytes(raw).items()}
            if fault := _not_finite(tensors):
                raise ValueError(f"{weights_path} cannot be used: {fault}; train again")
            net.load_state_dict(tensors, strict=True, assign=True)
        except (SafetensorError, RuntimeError) as error:
            raise ValueError(
                f"{weights_path} does not hold the weights of this version's {spec.name} ({_plain(error)}); train again"
            ) from None
        net = net.eval().requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        digest = hashlib.sha256(text).hexdigest()
        seen = within_um or None
        return cls(net, spec, ct_range, stain, um_per_px, planes, history, digest, grey_values, anchors, seen)


def stainer_folder(stainer: Path | str) -> Path:
    """The folder of a stainer: as it is, or that of a stainer that is shipped with the package under this name."""
    folder = Path(stainer)
    return _SHIPPED / folder if str(stainer) in shipped() and not folder.exists() else folder


def shipped() -> list[str]:
    """Names of the stainers that come with the package."""
    return sorted(path.parent.name for path in _SHIPPED.glob("*/stainer.json"))


def _not_finite(tensors: Mapping[str, Tensor]) -> str:
    """What is wrong with weights that nothing can be stained with, "" if nothing."""
    wrong = [name for name, t in tensors.items() if t.is_floating_point() and not bool(torch.isfinite(t).all())]
    if not wrong:
        return ""
    return f"{len(wrong)} of its {len(tensors)} weight tensors hold NaN or infinite values (first: {wrong[0]})"


def _refuse_giants(spec: NetSpec) -> None:
    for name, value in spec.args.items():
        if isinstance(value, int | float) and not 0 <= value <= _LARGEST_ARGUMENT:
            raise ValueError(f"its network's {name} is {value}")


def _plain(error: BaseException) -> str:
    """The first line of an error, or the missing key's name."""
    return f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error).partition("\n")[0]
