"""TIFF volumes: a folder of slices, one file of many pages; written and strictly read by tifffile."""

from __future__ import annotations

import logging
import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import tifffile
from PIL import Image

from fuzz.bombs import zlib_bomb
from fuzz.formats.common import SPACING_UM, grey, volume
from fuzz.judge import Format, Look, look
from fuzz.mutations import MUCH, NotHere, Target

SUFFIXES = (".tif", ".tiff", ".svs", ".btf")


@contextmanager
def no_warnings() -> Iterator[None]:
    """Whatever tifffile logs while it reads is an error."""
    said: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    logger, listener = logging.getLogger("tifffile"), Listener(level=logging.WARNING)
    logger.addHandler(listener)
    try:
        yield
    finally:
        logger.removeHandler(listener)
    if said:
        raise ValueError(f"tifffile warns: {said[0]}")


def whole_page(tiff: tifffile.TiffFile, page: Any) -> np.ndarray:
    """A page's values, if every strip or tile of it lies in the file."""
    size = tiff.filehandle.size
    spans = list(zip(page.dataoffsets, page.databytecounts, strict=True))
    wanted = int(np.prod(page.chunked))
    if not spans or (len(spans) != wanted and page.chunks != page.shape and len(spans) != 1):
        raise ValueError(f"{len(spans)} strips or tiles of {wanted}")
    if any(offset <= 0 or count <= 0 or offset + count > size for offset, count in spans):
        raise ValueError("strips or tiles lie outside the file")
    return page.asarray(maxworkers=1)


def pages_of(path: Path) -> np.ndarray:
    """All pages of a file whose chain of directories ends where it should."""
    with no_warnings(), tifffile.TiffFile(path) as tiff:
        pages = list(tiff.pages)
        place, kind = end_of_chain(tiff, path.read_bytes())
        if struct.unpack_from(kind, path.read_bytes(), place) != (0,):
            raise ValueError("the chain of directories is broken")
        return np.stack([whole_page(tiff, page) for page in pages])


def end_of_chain(tiff: tifffile.TiffFile, raw: bytes) -> tuple[int, str]:
    """Where the last directory points on, and the struct format of that pointer."""
    start, order = tiff.pages[-1].offset, tiff.byteorder
    (count,) = struct.unpack_from(order + ("Q" if tiff.is_bigtiff else "H"), raw, start)
    return start + (8 + 20 * count if tiff.is_bigtiff else 2 + 12 * count), order + ("Q" if tiff.is_bigtiff else "I")


def strict_stack(path: Path) -> Look:
    return look(pages_of(path), SPACING_UM)


def strict_folder(path: Path) -> Look:
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES)
    numbers = [int(file.stem[1:]) for file in files]
    if numbers != list(range(numbers[0], numbers[0] + len(numbers))):
        raise ValueError("a slice is missing")
    return look(np.concatenate([pages_of(file) for file in files]), SPACING_UM)


def strict_imagej(path: Path) -> Look:
    with no_warnings(), tifffile.TiffFile(path) as tiff:
        about, page = tiff.imagej_metadata, tiff.pages[0]
        y, x = (den / num for num, den in (page.tags.valueof(tag) for tag in ("YResolution", "XResolution")))
        values = tiff.asarray()
        if int(about.get("images", 1)) != len(values) or about["unit"] not in ("um", "\\u00B5m", "micron"):
            raise ValueError("its description and its images differ")
    return look(values, (about["spacing"], y, x))


def tag(t: Target) -> None:
    """A tag of the first or last directory has an absurd value, type or count."""
    path = t.pick(file for file in t.files() if file.suffix.lower() in SUFFIXES)
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[t.pick((0, -1))]
        chosen, order, big = t.pick(page.tags), tiff.byteorder, tiff.is_bigtiff
    raw = bytearray(path.read_bytes())
    lie = t.pick((*MUCH, 2, 3, 5, 7, 8, 34712, 50000, int(t.rng.integers(2**16))))
    part = t.pick(("value", "value", "value", "type", "count", "code"))
    start = {"code": 0, "type": 2, "count": 4, "value": 12 if big else 8}[part]
    kind = {"code": "H", "type": "H", "count": "Q" if big else "I", "value": "Q" if big else "I"}[part]
    if part == "value" and chosen.dtype == 3 and t.rng.random() < 0.8:
        kind = "H"
    place = chosen.offset + start
    if part == "value" and chosen.valueoffset != place and t.rng.random() < 0.7:
        place, kind = chosen.valueoffset, "H"
    struct.pack_into(order + kind, raw, place, lie % 256 ** struct.calcsize(kind))
    path.write_bytes(raw)


def directory_cycle(t: Target) -> None:
    """The last directory's pointer leads back to the first, or far outside."""
    t.exact = True
    path = t.pick(file for file in t.files() if file.suffix.lower() in SUFFIXES)
    with tifffile.TiffFile(path) as tiff:
        if tiff.is_imagej or tiff.is_ome:
            raise NotHere("only the first directory counts")
        raw = bytearray(path.read_bytes())
        first, last = tiff.pages[0].offset, tiff.pages[-1].offset
        place, kind = end_of_chain(tiff, raw)
    struct.pack_into(kind, raw, place, t.pick((first, last, len(raw) + 1000, 2**31, 3)))
    path.write_bytes(raw)


def strip_bomb(t: Target) -> None:
    """A compressed strip or tile is a few MB that unfold to 5 GiB."""
    t.exact = True
    path = t.pick(file for file in t.files() if file.suffix.lower() in SUFFIXES)
    with tifffile.TiffFile(path) as tiff:
        page, order = tiff.pages[0], tiff.byteorder
        where, counts = (
            page.tags[name]
            for name in (("TileOffsets", "TileByteCounts") if page.is_tiled else ("StripOffsets", "StripByteCounts"))
        )
        compression = page.tags["Compression"]
        if where.dtype not in (4, 16):
            raise NotHere("offsets of another type")
        formats = [(item.valueoffset, {3: "H", 4: "I", 16: "Q"}[item.dtype]) for item in (where, counts, compression)]
    bomb = zlib_bomb()
    raw = bytearray(path.read_bytes())
    for (place, kind), value in zip(formats, (len(raw), len(bomb), 8), strict=True):
        if value >= 256 ** struct.calcsize(kind):
            raise NotHere("the bomb's size does not fit the tag")
        struct.pack_into(order + kind, raw, place, value)
    path.write_bytes(raw + bomb)


def write_stack(path: Path, **settings: Any) -> Path:
    with tifffile.TiffWriter(
        path, bigtiff=settings.pop("bigtiff", False), byteorder=settings.pop("byteorder", "<")
    ) as out:
        for plane in grey():
            out.write(plane, contiguous=False, photometric="minisblack", metadata=None, software=False, **settings)
    return path


def write_folder(folder: Path) -> Path:
    inner = folder / "slices"
    inner.mkdir()
    for z, plane in enumerate(grey()):
        tifffile.imwrite(inner / f"s{z:03}.tif", plane, metadata=None, software=False, rowsperstrip=10)
    return inner


def write_imagej(folder: Path) -> Path:
    z, y, x = SPACING_UM
    about = {"spacing": z, "unit": "um", "axes": "ZYX"}
    tifffile.imwrite(folder / "ij.tif", grey(), imagej=True, resolution=(1 / x, 1 / y), metadata=about)
    return folder / "ij.tif"


def write_ome(folder: Path) -> Path:
    z, y, x = SPACING_UM
    about = {"axes": "ZYX", "UUID": "urn:uuid:00000000-0000-0000-0000-000000000001"}
    about |= {f"PhysicalSize{name}": edge for name, edge in zip("ZYX", (z, y, x), strict=True)}
    tifffile.imwrite(folder / "ct.ome.tif", grey(), ome=True, compression="zlib", metadata=about)
    return folder / "ct.ome.tif"


def strict_ome(path: Path) -> Look:
    with no_warnings(), tifffile.TiffFile(path, _multifile=False) as tiff:
        (image,) = (tifffile.xml2dict(tiff.ome_metadata)["OME"]["Image"],)
        pixels = image["Pixels"]
        if pixels["DimensionOrder"] != "XYCZT" or pixels["SizeC"] != 1 or pixels["SizeT"] != 1:
            raise ValueError("other axes")
        if not {"PhysicalSizeXUnit", "PhysicalSizeYUnit", "PhysicalSizeZUnit"}.isdisjoint(pixels):
            units = {pixels.get(f"PhysicalSize{name}Unit", "\u00b5m") for name in "XYZ"}
            if units != {"\u00b5m"}:
                raise ValueError("other units")
        if [pixels[f"Size{name}"] for name in "ZYX"] != [len(tiff.pages), *tiff.pages[0].shape]:
            raise ValueError("another number of pages")
    return look(pages_of(path), [pixels[f"PhysicalSize{name}"] for name in "ZYX"])


def xml_bomb(t: Target) -> None:
    """The OME-XML unfolds to 10^9 characters, refers to a file outside, or nests without end."""
    t.exact = True
    laughs = '<!DOCTYPE OME [<!ENTITY a0 "ha">' + "".join(
        f'<!ENTITY a{i} "{f"&a{i - 1};" * 10}">' for i in range(1, 10)
    )
    outer = f'<!DOCTYPE OME [<!ENTITY x SYSTEM "file://{t.inside.parent}/secret">]><OME>&x;</OME>'
    (t.inside.parent / "secret").write_text("secret")
    lies = (f"{laughs}]><OME>&a9;</OME>", outer, "<OME>" + "<Image>" * 100_000, "<OME/>", "<OME><Image/></OME>")
    xml = ('<?xml version="1.0"?>' + t.pick(lies)).encode()
    if xml.endswith(b"</OME>") is False:
        xml += b"</OME>" if t.rng.random() < 0.5 else b""
    with tifffile.TiffFile(t.path) as tiff:
        about, order = tiff.pages[0].tags["ImageDescription"], tiff.byteorder
        place = about.offset + 4
    raw = bytearray(t.path.read_bytes())
    struct.pack_into(order + "II", raw, place, len(xml) + 1, len(raw))
    t.path.write_bytes(raw + xml + b"\0")


def files_elsewhere(t: Target) -> None:
    """The OME-XML takes its planes from another file: outside the folder, a device, itself, or nowhere."""
    t.exact = True
    other = t.inside.parent / "secret.ome.tif"
    tifffile.imwrite(other, np.full(grey().shape, 0x5555, np.uint16), ome=True, metadata={"axes": "ZYX"})
    with tifffile.TiffFile(t.path) as tiff:
        about, order, told = tiff.pages[0].tags["ImageDescription"], tiff.byteorder, tiff.ome_metadata
        place = about.offset + 4
    named = t.pick(("../secret.ome.tif", str(other), "/dev/zero", "nowhere.ome.tif", t.path.name, "..", ""))
    unique = t.pick(("urn:uuid:00000000-0000-0000-0000-000000000002", "urn:uuid:00000000-0000-0000-0000-000000000001"))
    data = f'<TiffData IFD="0" PlaneCount="11"><UUID FileName="{named}">{unique}</UUID></TiffData>'
    xml = re.sub(r"<TiffData.*?(/>|</TiffData>)", data, told or "", flags=re.S).encode()
    raw = bytearray(t.path.read_bytes())
    struct.pack_into(order + "II", raw, place, len(xml) + 1, len(raw))
    t.path.write_bytes(raw + xml + b"\0")


def png_bomb(t: Target) -> None:
    """A PNG of a few MB whose header states a picture of many GB, or that unfolds to more than it states."""
    t.exact = True
    size = t.pick((20_000, 60_000, 2**31 - 1))
    row = bytes(1 + 3 * min(size, 60_000))
    data = zlib.compress(row * 200, 9)
    header = struct.pack(">IIBBBBB", size, size, 8, t.pick((0, 2)), 0, 0, 0)
    chunks = (b"IHDR" + header, b"IDAT" + data, b"IEND")
    body = b"".join(struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks)
    t.pick(file for file in t.files() if file.suffix == ".png").write_bytes(b"\x89PNG\r\n\x1a\n" + body)


def write_pictures(folder: Path) -> Path:
    inner = folder / "slices"
    inner.mkdir()
    for z, plane in enumerate(grey()):
        Image.fromarray(plane).save(inner / f"s{z:03}.png")
    return inner


def strict_pictures(path: Path) -> Look:
    files = sorted(path.glob("*.png"))
    numbers = [int(file.stem[1:]) for file in files]
    if numbers != list(range(numbers[0], numbers[0] + len(numbers))):
        raise ValueError("a slice is missing")
    for file in files:
        with Image.open(file) as picture:
            picture.verify()
    return look(np.stack([np.asarray(Image.open(file)) for file in files]), SPACING_UM)


def write_skyscan(folder: Path) -> Path:
    inner = folder / "bone_Rec"
    inner.mkdir()
    for z, plane in enumerate(grey("uint8")):
        tifffile.imwrite(inner / f"bone__rec{z:08}.tif", plane, metadata=None, software=False)
    words = "[System]\nScanner=SkyScan1172\n[Reconstruction]\nPixel Size (um)=2.500000\nSection to Section Step=1\n"
    (inner / "bone__rec.log").write_text(words)
    return inner


def strict_skyscan(path: Path) -> Look:
    files = sorted(path.glob("*.tif"))
    numbers = [int(file.stem[-8:]) for file in files]
    if numbers != list(range(numbers[0], numbers[0] + len(numbers))):
        raise ValueError("a slice is missing")
    text = (path / "bone__rec.log").read_text()
    edge = next(float(line.split("=")[1]) for line in text.splitlines() if line.startswith("Pixel Size (um)"))
    step = next(int(line.split("=")[1]) for line in text.splitlines() if line.startswith("Section to Section"))
    return look(np.concatenate([pages_of(file) for file in files]), (edge * step, edge, edge))


_OWN = MappingProxyType({"tag": tag, "directory-cycle": directory_cycle, "strip-bomb": strip_bomb})

OME = MappingProxyType({**_OWN, "xml-bomb": xml_bomb, "files-elsewhere": files_elsewhere})

TIFFS = {
    "tiff-stack": Format(
        lambda folder: write_stack(folder / "stack.tif", rowsperstrip=10), volume(SPACING_UM), strict_stack, _OWN
    ),
    "tiff-stack-deflate": Format(
        lambda folder: write_stack(folder / "stack.tif", compression="zlib", predictor=True, byteorder=">"),
        volume(SPACING_UM),
        strict_stack,
        _OWN,
    ),
    "tiff-stack-big": Format(
        lambda folder: write_stack(folder / "big.tif", bigtiff=True, tile=(16, 16), compression="lzw"),
        volume(SPACING_UM),
        strict_stack,
        _OWN,
    ),
    "tiff-folder": Format(write_folder, volume(SPACING_UM), strict_folder, _OWN),
    "tiff-ome": Format(
        write_ome, volume(), strict_ome, {**_OWN, "xml-bomb": xml_bomb, "files-elsewhere": files_elsewhere}
    ),
    "skyscan": Format(write_skyscan, volume(), strict_skyscan, {"tag": tag}),
    "png-folder": Format(write_pictures, volume(SPACING_UM), strict_pictures, {"png-bomb": png_bomb}),
    "tiff-imagej": Format(write_imagej, volume(), strict_imagej, _OWN),
}
