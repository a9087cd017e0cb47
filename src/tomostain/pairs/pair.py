"""A Pair: CT plane (or slab) and stain on one Grid, with mask and confidence; stored as NAME.pair.zarr."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from zarr.codecs import ZstdCodec

from tomostain import runs
from tomostain.images.anchors import Anchors
from tomostain.images.geometry import LARGE_PLANE_PX, Grid, Placement, Plane, by
from tomostain.images.grey_values import GreyValues
from tomostain.images.image import Slide, Volume
from tomostain.images.resample import mask_on_plane, plane_of, slide_on_plane
from tomostain.io.names import checked_name
from tomostain.io.volumes.headers import VolumeError, reported
from tomostain.io.volumes.zarr_store import attributes_of, read_whole

FORMAT = "tomostain-pair"
SUFFIX = ".pair.zarr"
_DTYPES = {"ct": np.float32, "stain": np.uint8, "mask": np.uint8, "confidence": np.float32, "inside": np.uint8}
_DTYPES |= {"truth": np.uint8, "tissues": np.uint8}
_OPTIONAL = ("inside", "truth", "tissues")
OUTSIDE = 255
"""Value of ``Pair.tissues`` outside the volume."""


@dataclass(frozen=True, eq=False)
class Pair:
    """One section and the CT it was cut from, pixel on pixel.

    ``ct`` is (planes, y, x) float32 in the volume's own values, ``stain`` (y, x, 3) uint8 sRGB, ``mask`` (y, x) bool
    (True where both exist), ``confidence`` (y, x) float32 in [0, 1]. ``grid`` is the plane's raster (um).
    ``simulated`` says which of ``CT`` and ``stain`` come from the phantom and not from a real specimen. ``inside``
    (y, x) bool is True where the CT volume has values, elsewhere ``ct`` is filled; None: it has values everywhere.
    ``truth`` (y, x, 3) uint8 sRGB is the perfect section and ``tissues`` (y, x) uint8 its labels (``pairs.truth``), in
    pairs of the phantom; None for real pairs.
    """

    ct: npt.NDArray[np.float32]
    stain: npt.NDArray[np.uint8]
    mask: npt.NDArray[np.bool_]
    confidence: npt.NDArray[np.float32]
    grid: Grid
    specimen: str
    name: str
    stain_name: str = "toluidine blue"
    plane: Plane | None = None
    notes: Mapping[str, Any] = field(default_factory=dict)
    simulated: tuple[str, ...] = ()
    inside: npt.NDArray[np.bool_] | None = None
    truth: npt.NDArray[np.uint8] | None = None
    tissues: npt.NDArray[np.uint8] | None = None
    anchors: tuple[Anchors, ...] = ()
    """What may be the grey values of soft tissue and bone in its CT volume, the likeliest first; empty: not found."""

    def __post_init__(self) -> None:
        if not self.specimen:
            raise ValueError(f"pair {self.name} names no specimen; pass --specimen NAME")
        checked_name(self.name, "pair")
        checked_name(self.specimen, "specimen")
        shape = self.grid.shape
        found = {"ct": self.ct.shape[1:], "stain": self.stain.shape[:2], "mask": self.mask.shape}
        found["confidence"] = self.confidence.shape
        optional = {"inside": self.inside, "truth": self.truth, "tissues": self.tissues}
        found |= {name: there.shape[:2] for name, there in optional.items() if there is not None}
        wrong = {name: there for name, there in found.items() if tuple(there) != shape}
        colours = [image.shape[2:] for image in (self.stain, self.truth) if image is not None]
        if wrong or self.ct.ndim != 3 or colours != [(3,)] * len(colours):
            raise ValueError(f"pair {self.name}: CT and stain must share one raster {shape}; {wrong or 'wrong axes'}")
        if (self.truth is None) != (self.tissues is None):
            raise ValueError(f"pair {self.name}: the perfect section and its tissues belong together; one is missing")
        if not self.mask.any():
            raise ValueError(f"pair {self.name}: the mask leaves no pixel; check the placement and the exclude mask")
        inside = self.ct[:, self.mask]
        if not np.isfinite(inside).all():
            raise ValueError(
                f"pair {self.name}: the CT has NaN or infinite values inside the mask; mask or replace them"
            )
        if inside.min() == inside.max():
            raise ValueError(
                f"pair {self.name}: the CT is constant ({inside.min():g}) inside the mask; nothing to learn"
            )

    def __repr__(self) -> str:
        size = f"{by(self.grid.shape)} px of {by(self.grid.spacing_um)} um"
        known = "" if self.truth is None else ", perfect section known"
        return f"<Pair {self.name} of {self.specimen}: {size}, {self.stain_name}, CT planes: {len(self.ct)}{known}>"

    @property
    def weight(self) -> npt.NDArray[np.float32]:
        """Weight of each pixel in losses and metrics: mask x confidence, (y, x) float32."""
        return self.mask * self.confidence

    @cached_property
    def grey_values(self) -> GreyValues | None:
        """How the CT's values are distributed where the pair counts; None where they are all the same."""
        return GreyValues.of(self.central_ct[self.weight > 0])

    def central_planes(self, planes: int) -> npt.NDArray[np.float32]:
        """So many CT planes about the section, or all where there are fewer: (planes, y, x) float32."""
        first = max(0, (len(self.ct) - planes) // 2)
        return self.ct[first : first + planes]

    @property
    def central_ct(self) -> npt.NDArray[np.float32]:
        """The CT plane that the stain lies in: (y, x) float32."""
        central: npt.NDArray[np.float32] = self.ct[self.ct.shape[0] // 2]
        return central


def _repeat_outwards(ct: npt.NDArray[np.float32]) -> None:
    """Where a neighbouring plane lies outside the volume, the plane nearer to the section is repeated, in place."""
    middle = len(ct) // 2
    for away in range(1, middle + 1):
        for plane, nearer in ((middle - away, middle - away + 1), (middle + away, middle + away - 1)):
            outside = ~np.isfinite(ct[plane])
            ct[plane][outside] = ct[nearer][outside]


def make_pair(
    volume: Volume,
    slide: Slide,
    placement: Placement,
    *,
    specimen: str,
    name: str,
    planes: int = 1,
    exclude: npt.NDArray[Any] | None = None,
    stain_name: str = "toluidine blue",
) -> Pair:
    """Cut the CT where the slide was cut and average the slide down to the CT's voxel size.

    ``planes`` is the number of CT planes, a voxel apart, centred on the section. ``exclude`` is a slide mask (y, x),
    non-zero where the slide must not be used (markers, folds). The confidence is the placement's own (1 where it
    was not judged) times the share of each pixel that ``exclude`` leaves; the expected TRE and what was done
    to the slide on the way (turned, colours converted) go into the notes.

    Raises
    ------
    ValueError
        The placement belongs to a slide of another size, or slide and volume do not overlap.
    """
    if tuple(slide.shape[:2]) != placement.slide_shape:
        raise ValueError(
            f"{slide.name} is {slide.shape[0]} x {slide.shape[1]} px but its placement was made for "
            f"{placement.slide_shape[0]} x {placement.slide_shape[1]}; use the placement of this slide"
        )
    plane = placement.plane(float(min(volume.grid.spacing_um)))
    if plane.shape[0] * plane.shape[1] > LARGE_PLANE_PX:
        plane = plane.within(volume.grid)
    ct = plane_of(volume, plane, planes=planes)
    stain, covered = slide_on_plane(slide, placement, plane)
    _repeat_outwards(ct)
    inside = np.isfinite(ct[len(ct) // 2])
    mask = covered & inside
    if not mask.any():
        raise ValueError(f"{slide.name} lies outside {volume.name} at its placement; check the placement")
    confidence = np.where(mask, placement.confidence_at(placement.volume_um_to_slide_px(plane.points_um())), 0.0)
    if exclude is not None:
        confidence *= 1.0 - np.clip(mask_on_plane(exclude, placement, plane), 0.0, 1.0)
        mask &= confidence > 0
    notes: dict[str, Any] = {"slide": list(slide.about["notes"])} if slide.about.get("notes") else {}
    if placement.expected_tre_um is not None:
        notes["expected_tre_um"] = placement.expected_tre_um
    notes |= {key: placement.notes[key] for key in ("probability", "check") if key in placement.notes}
    notes["volume"] = {"shape": volume.grid.shape, "spacing_um": volume.grid.spacing_um}
    notes["volume"]["origin_um"] = volume.grid.origin_um
    if placement.notes.get("check"):
        warnings.warn(
            f"{slide.name}: its placement is uncertain (probability {float(placement.notes['probability']):.0%}); "
            "check by eye that CT and stain match before you train on this pair",
            stacklevel=2,
        )
    return Pair(
        ct=np.where(np.isfinite(ct), ct, np.float32(np.median(ct[:, mask]) if mask.any() else 0.0)),
        stain=stain,
        mask=mask,
        confidence=confidence.astype(np.float32),
        grid=plane.grid,
        specimen=specimen,
        name=name,
        stain_name=stain_name,
        plane=plane,
        notes=notes,
        inside=None if inside.all() else inside,
        simulated=tuple(part for part, image in (("CT", volume), ("stain", slide)) if image.simulated),
    )


def save_pair(pair: Pair, path: Path) -> Path:
    """Write a pair as a Zarr v3 group; its attributes, written last, make it whole."""
    root = zarr.open_group(path, mode="w", zarr_format=3)
    arrays: dict[str, npt.NDArray[Any]] = {"ct": pair.ct, "stain": pair.stain}
    arrays |= {"mask": pair.mask.astype(np.uint8), "confidence": pair.confidence}
    arrays |= {} if pair.inside is None else {"inside": pair.inside.astype(np.uint8)}
    arrays |= {} if pair.truth is None else {"truth": pair.truth}
    arrays |= {} if pair.tissues is None else {"tissues": pair.tissues}
    for name, values in arrays.items():
        chunk = tuple(min(n, 512) for n in values.shape)
        settings: dict[str, Any] = {
            "chunks": chunk,
            "compressors": ZstdCodec(level=3),
            "config": {"write_empty_chunks": True},
        }
        root.create_array(name, data=np.ascontiguousarray(values), **settings)
    root.attrs.update(
        {
            "format": FORMAT,
            "version": 1,
            "specimen": pair.specimen,
            "name": pair.name,
            "stain_name": pair.stain_name,
            "spacing_um": list(pair.grid.spacing_um),
            "origin_um": list(pair.grid.origin_um),
            "plane": pair.plane.to_json() if pair.plane else None,
            "notes": json.loads(json.dumps(dict(pair.notes))),
            "simulated": list(pair.simulated),
            "arrays": list(arrays),
            "grey_values": pair.grey_values.to_json() if pair.grey_values else None,
            "anchors": [anchors.to_json() for anchors in pair.anchors],
            "every_chunk": True,
        }
    )
    return Path(path)


def grey_values_by_specimen(pairs: Iterable[Pair]) -> dict[str, GreyValues]:
    """The grey values of each specimen, its pairs together."""
    parts: dict[str, list[GreyValues]] = {}
    for pair in pairs:
        if pair.grey_values is not None:
            parts.setdefault(pair.specimen, []).append(pair.grey_values)
    return {name: GreyValues.pooled(values) for name, values in sorted(parts.items())}


def grey_values_in(paths: Iterable[Path]) -> tuple[dict[str, GreyValues], dict[str, tuple[Anchors, ...]]]:
    """The same of saved pairs, and their anchors; images are not read, and pairs that do not say it are left out.

    Raises
    ------
    ValueError
        What a pair says is damaged.
    """
    parts: dict[str, list[GreyValues]] = {}
    anchors: dict[str, tuple[Anchors, ...]] = {}
    for path in paths:
        with reported(Path(path).name, "a pair"):
            about = attributes_of(path)
            if about.get("grey_values"):
                parts.setdefault(str(about["specimen"]), []).append(GreyValues.from_json(about["grey_values"]))
            if found := _anchors(about):
                anchors.setdefault(str(about["specimen"]), found)
    return {name: GreyValues.pooled(values) for name, values in sorted(parts.items())}, anchors


def knows_truth(path: Path) -> bool:
    """Whether a saved pair holds its perfect section; reads no image."""
    return "truth" in (attributes_of(path).get("arrays") or ())


def load_pair(path: Path) -> Pair:
    """Read a pair.

    Raises
    ------
    ValueError
        The folder is not a pair, an unfinished one, or damaged.
    """
    path = Path(path)
    try:
        with reported(path.name, "a pair"):
            return _load(path)
    except ValueError as error:
        raise ValueError(f"{path} is not a readable pair ({error}); make it again with `tomostain pair`") from None


def _load(path: Path) -> Pair:
    about = attributes_of(path)
    if about.get("format") != FORMAT:
        raise VolumeError("it has no pair attributes, so its writing was interrupted")
    arrays: dict[str, npt.NDArray[Any]] = {}
    stored = about.get("arrays", ())
    for name, dtype in _DTYPES.items():
        if name in _OPTIONAL and name not in stored:
            continue
        arrays[name] = read_whole(path, name, every_chunk=bool(about.get("every_chunk")))
        if arrays[name].dtype != dtype:
            raise VolumeError(f"its {name} is {arrays[name].dtype}, not {dtype}")
    confidence = arrays["confidence"]
    if not (np.isfinite(confidence).all() and confidence.min() >= 0 and confidence.max() <= 1):
        raise VolumeError("its confidence does not lie in 0 .. 1")
    plane = about["plane"]
    return Pair(
        ct=arrays["ct"],
        stain=arrays["stain"],
        mask=arrays["mask"].astype(bool),
        confidence=confidence,
        grid=Grid(arrays["mask"].shape, tuple(about["spacing_um"]), tuple(about["origin_um"])),
        specimen=checked_name(about["specimen"], "specimen"),
        name=checked_name(about["name"], "pair"),
        stain_name=str(about["stain_name"]),
        plane=Plane.from_json(plane) if plane else None,
        notes=dict(about["notes"]),
        inside=arrays["inside"].astype(bool) if "inside" in arrays else None,
        simulated=tuple(str(part) for part in about.get("simulated", ())),
        truth=arrays.get("truth"),
        tissues=arrays.get("tissues"),
        anchors=_anchors(about),
    )


def _anchors(about: Mapping[str, Any]) -> tuple[Anchors, ...]:
    return tuple(Anchors(*map(float, values)) for values in about.get("anchors") or ())


def pairs_in(folder: Path, *, even_unfinished: bool = False) -> list[Path]:
    """All pairs below a folder, in the order of their names (``folder`` may itself be a pair).

    Pairs that a user copied together are accepted; pairs of an interrupted run of `tomostain pair` are refused, unless
    ``even_unfinished``.

    Raises
    ------
    FileNotFoundError
        There is none.
    ValueError
        The folder, one within it or a pair is not finished.
    """
    folder = Path(folder)
    found = [folder] if folder.name.endswith(SUFFIX) else sorted(folder.rglob(f"*{SUFFIX}"))
    if not found or not found[0].is_dir():
        raise FileNotFoundError(f"{folder} holds no *{SUFFIX}; make pairs with `tomostain pair`")
    for path in () if even_unfinished else found:
        for part in (path, *path.parents):
            if runs.unfinished(part) is not None:
                raise ValueError(
                    f"{part} is not finished: `tomostain pair` is writing it, or was interrupted "
                    f"({part.name}.unfinished lies beside it); run the same command again to finish it"
                )
            if part == folder:
                break
    return found
