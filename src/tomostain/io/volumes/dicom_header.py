"""What a DICOM file says about each of its frames, before any value is read."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import pydicom
from pydicom.datadict import tag_for_keyword

from tomostain.io.units import UM_PER_MM, number_of
from tomostain.io.volumes.headers import VolumeError, check_size

_KEYWORDS = (
    "SOPClassUID", "Modality", "SeriesInstanceUID", "SeriesNumber", "SeriesDescription", "InstanceNumber",
    "ImagePositionPatient", "ImageOrientationPatient", "SliceLocation", "PixelSpacing", "NominalScannedPixelSpacing",
    "SpacingBetweenSlices", "SliceThickness", "Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation",
    "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "NumberOfFrames", "RescaleSlope",
    "RescaleIntercept", "RescaleType", "ModalityLUTSequence", "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
)  # fmt: skip
_DEFLATED = "1.2.840.10008.1.2.1.99"
_IMPLICIT = "1.2.840.10008.1.2"
_NATIVE: dict[str, Literal["<", ">"]] = {_IMPLICIT: "<", "1.2.840.10008.1.2.1": "<", "1.2.840.10008.1.2.2": ">"}
"""Byte order of the transfer syntaxes whose values lie as they are."""
_WHOLE_SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"
_MOST_FRAMES = 2**20


@dataclass(frozen=True)
class Frame:
    """One plane: where its values lie, what they mean, and where it was in the scanner (um)."""

    file: Path
    index: int
    frames: int
    """How many the file holds."""
    shape: tuple[int, int]
    dtype: np.dtype[Any]
    bits: int
    syntax: str
    values_at: int | None
    """Where uncompressed values begin, in bytes; None where they must be decoded."""
    series: str
    series_number: str
    description: str
    number: int | None
    position_um: tuple[float, ...] | None
    axes: tuple[tuple[float, ...], tuple[float, ...]] | None
    """Unit vectors along the rows (x) and down the columns (y)."""
    height_um: float | None
    pixel_um: tuple[float, float] | None
    """(y, x)."""
    between_um: float | None
    thickness_um: float | None
    slope: float
    intercept: float
    units: str | None

    @property
    def where(self) -> str:
        """The frame in words."""
        return self.file.name if self.frames == 1 else f"frame {self.index} of {self.file.name}"


@dataclass(frozen=True)
class Header:
    """The elements of a file, and where its pixels are."""

    elements: Any
    syntax: str
    """The transfer syntax: how the pixels are stored."""
    pixels_at: int
    """The first byte of the pixels, 0 where there are none."""
    pixel_bytes: int


def read_header(file: Path) -> Header:
    """The elements of a DICOM file that are needed, its pixels left where they are.

    Raises
    ------
    VolumeError
        It is compressed as a whole.
    """
    if str(pydicom.filereader.read_file_meta_info(file).get("TransferSyntaxUID", "")) == _DEFLATED:
        raise VolumeError(f"{file.name} is deflated as a whole; save it uncompressed, for example with gdcmconv --raw")
    with file.open("rb") as opened:
        elements = pydicom.dcmread(opened, stop_before_pixels=True, specific_tags=list(_KEYWORDS))
        return Header(elements, str(elements.file_meta.get("TransferSyntaxUID", _IMPLICIT)), *_pixels_at(opened))


def is_microscopy(file: Path) -> bool:
    """Whether a DICOM file is a whole slide image, by its class; not, where it cannot be read."""
    try:
        return _text(read_header(file).elements, "SOPClassUID") == _WHOLE_SLIDE
    except Exception:  # whatever pydicom raises on a broken file
        return False


def _pixels_at(opened: BinaryIO) -> tuple[int, int]:
    """Where the pixels begin and how many bytes they are, at the head of their element; zeros where it is none."""
    begin, head = opened.tell(), opened.read(12)
    if head[:4] == b"\xe0\x7f\x10\x00":
        order: Literal["little", "big"] = "little"
    elif head[:4] == b"\x7f\xe0\x00\x10":
        order = "big"
    else:
        return 0, 0
    explicit = head[4:6].isalpha()
    return begin + (12 if explicit else 8), int.from_bytes(head[8:12] if explicit else head[4:8], order)


def frames_of(file: Path, read: Header) -> Iterator[Frame]:
    """Every frame of a file, checked against its size.

    Raises
    ------
    VolumeError
        No image, colours, a type of values that is not read, or values that the file does not hold.
    """
    name, header, syntax = file.name, read.elements, read.syntax
    if _text(header, "SOPClassUID") == _WHOLE_SLIDE:
        raise VolumeError(f"{name} is a slide, and no volume; give it as SLIDE")
    shape = (_whole(header, "Rows", name), _whole(header, "Columns", name))
    if not read.pixels_at or min(shape) < 1:
        raise VolumeError(f"{name} holds no image; keep the slices in a folder of their own")
    if _whole(header, "SamplesPerPixel", name, 1) != 1 or not _text(header, "PhotometricInterpretation").startswith(
        "MONOCHROME"
    ):
        raise VolumeError(f"{name} holds colours; a CT volume has one grey value a voxel")
    dtype, bits = _type_of(header, name)
    frames = _whole(header, "NumberOfFrames", name, 1)
    if not 1 <= frames <= _MOST_FRAMES:
        raise VolumeError(f"{name} states {frames} frames; it is damaged, copy it again")
    begin = None
    if syntax in _NATIVE:
        begin, wanted = read.pixels_at, frames * math.prod(shape) * dtype.itemsize
        if begin + wanted > file.stat().st_size:
            raise VolumeError(f"{name} ends before its values do; copy or export it again")
        if not wanted <= read.pixel_bytes <= wanted + 1 or not _ends_well(file, begin + read.pixel_bytes):
            raise VolumeError(
                f"{name} states {read.pixel_bytes} bytes of values where its sizes make {wanted}; it is damaged, "
                "copy it again"
            )
        dtype = dtype.newbyteorder(_NATIVE[syntax])
    else:
        check_size(name, (frames, *shape), dtype, file.stat().st_size)
    shared = _first(header, "SharedFunctionalGroupsSequence")
    groups = header.get("PerFrameFunctionalGroupsSequence") or [None] * frames
    if len(groups) != frames:
        raise VolumeError(f"{name} describes {len(groups)} of its {frames} frames; it is damaged, export it again")
    for i, group in enumerate(groups):
        facts = _Facts(header, shared, group)
        plane = None if begin is None else begin + i * math.prod(shape) * dtype.itemsize
        yield _frame(file, facts, name, (i, frames), (shape, dtype, bits, syntax, plane))


@dataclass(frozen=True)
class _Facts:
    """A frame's elements: its own functional group, else the shared one, else the file's."""

    header: Any
    shared: Any
    own: Any

    def numbers(self, keyword: str, group: str, count: int) -> tuple[float, ...] | None:
        for source in (_first(self.own, group), _first(self.shared, group), self.header):
            found = _numbers(source, keyword)
            if found is not None and len(found) == count:
                return found
        return None

    def number(self, keyword: str, group: str) -> float | None:
        found = self.numbers(keyword, group, 1)
        return found[0] if found else None

    def text(self, keyword: str, group: str) -> str:
        sources = (_first(self.own, group), _first(self.shared, group), self.header)
        return next((text for text in (_text(source, keyword) for source in sources) if text), "")


def _ends_well(file: Path, end: int) -> bool:
    """Whether a file ends with its pixels, or continues with an element of a later group."""
    with file.open("rb") as opened:
        opened.seek(end)
        head = opened.read(4)
    return not head or head == b"\xfc\xff\xfc\xff"


def _frame(file: Path, facts: _Facts, name: str, place: tuple[int, int], values: tuple[Any, ...]) -> Frame:
    header, (index, frames), (shape, dtype, bits, syntax, values_at) = facts.header, place, values
    slope = facts.number("RescaleSlope", "PixelValueTransformationSequence")
    intercept = facts.number("RescaleIntercept", "PixelValueTransformationSequence")
    if header.get("ModalityLUTSequence") or slope == 0:
        raise VolumeError(f"{name} gives its values by a table or without a slope; export it with slope and intercept")
    kind = facts.text("RescaleType", "PixelValueTransformationSequence")
    units = {"": "HU" if _text(header, "Modality") == "CT" and slope is not None else None, "US": None}.get(kind, kind)
    axes = facts.numbers("ImageOrientationPatient", "PlaneOrientationSequence", 6)
    position = facts.numbers("ImagePositionPatient", "PlanePositionSequence", 3)
    single = frames == 1 or facts.own is not None  # a plain multi-frame file gives the place of its first frame only
    height = facts.number("SliceLocation", "") if single else None
    pixel = facts.numbers("PixelSpacing", "PixelMeasuresSequence", 2) or facts.numbers(
        "NominalScannedPixelSpacing", "", 2
    )
    between = facts.number("SpacingBetweenSlices", "PixelMeasuresSequence")
    thickness = facts.number("SliceThickness", "PixelMeasuresSequence")
    instance = _numbers(header, "InstanceNumber")
    return Frame(
        file, index, frames, shape, dtype, bits, syntax, values_at,
        series=_text(header, "SeriesInstanceUID"),
        series_number=_text(header, "SeriesNumber"),
        description=_text(header, "SeriesDescription"),
        number=None if not instance and frames == 1 else int(instance[0] if instance else 0) * frames + index,
        position_um=_um(position) if single else None,
        axes=_axes(axes),
        height_um=None if height is None else height * UM_PER_MM,
        pixel_um=(pixel[0] * UM_PER_MM, pixel[1] * UM_PER_MM) if pixel and min(pixel) > 0 else None,
        between_um=abs(between) * UM_PER_MM if between else None,
        thickness_um=thickness * UM_PER_MM if thickness and thickness > 0 else None,
        slope=1.0 if slope is None else slope,
        intercept=intercept or 0.0,
        units=units,
    )  # fmt: skip


def _type_of(header: Any, name: str) -> tuple[np.dtype[Any], int]:
    allocated, signed = _whole(header, "BitsAllocated", name), _whole(header, "PixelRepresentation", name, 0)
    stored = _whole(header, "BitsStored", name, allocated)
    if allocated not in (8, 16, 32) or signed not in (0, 1) or not 0 < stored <= allocated:
        raise VolumeError(f"{name} stores values of {stored} bits in {allocated}; save it as 16 bit")
    if _whole(header, "HighBit", name, stored - 1) != stored - 1:
        raise VolumeError(f"{name} stores its values in the upper bits; save it again with gdcmconv --raw")
    return np.dtype(f"{'i' if signed else 'u'}{allocated // 8}"), stored


def _um(position_mm: tuple[float, ...] | None) -> tuple[float, ...] | None:
    return None if position_mm is None else tuple(edge * UM_PER_MM for edge in position_mm)


def _axes(cosines: tuple[float, ...] | None) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """The two axes of a plane, None where they are not unit vectors at a right angle."""
    if cosines is None:
        return None
    along, down = np.asarray(cosines[:3]), np.asarray(cosines[3:])
    unit = abs(np.linalg.norm(along) - 1) < 1e-2 and abs(np.linalg.norm(down) - 1) < 1e-2
    if not unit or abs(float(along @ down)) > 1e-2:
        return None
    along, down = along / np.linalg.norm(along), down / np.linalg.norm(down)
    return tuple(map(float, along)), tuple(map(float, down))


def _first(source: Any, keyword: str) -> Any:
    """The first item of a sequence, None where there is none."""
    sequence = source.get(keyword) if source is not None and keyword else None
    return sequence[0] if sequence else None


def _raw(source: Any, keyword: str) -> Any:
    tag = tag_for_keyword(keyword)
    element = None if source is None or tag is None else source.get_item(tag)
    return None if element is None else element


def _text(source: Any, keyword: str) -> str:
    element = _raw(source, keyword)
    value = element.value if element is not None else None
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    return str(value if value is not None else "").strip("\0 ")


def _numbers(source: Any, keyword: str) -> tuple[float, ...] | None:
    """The numbers of an element that holds them as text; None where one of them is none."""
    element = _raw(source, keyword)
    if element is None or element.value is None:
        return None
    value = element.value
    if isinstance(value, bytes):
        parts: list[Any] = list(value.decode("latin-1").strip("\0 ").split("\\"))
    else:
        parts = list(value) if isinstance(value, (list, tuple, pydicom.multival.MultiValue)) else [value]
    found = [number_of(str(part).strip("\0 ")) for part in parts]
    return None if None in found else tuple(n for n in found if n is not None)


def _whole(header: Any, keyword: str, name: str, default: int | None = None) -> int:
    """A whole number of the header.

    Raises
    ------
    VolumeError
        There is none, and no default.
    """
    value = header.get(keyword)
    if value is None and default is not None:
        return default
    try:
        return int(value)
    except (TypeError, ValueError):
        raise VolumeError(f"{name} needs a whole number as {keyword}, not {str(value)[:40]!r}; it is damaged") from None
