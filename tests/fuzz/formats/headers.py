"""Volumes with a header of their own: NRRD, MetaImage, NIfTI, Scanco, .npy, raw; strictly read by others' libraries."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType

import nibabel
import nrrd
import numpy as np
import SimpleITK

from fuzz.bombs import gzip_bomb, zlib_bomb
from fuzz.formats.common import SHAPE, SPACING_UM, grey, volume
from fuzz.judge import Format, Look, look
from fuzz.mutations import Target
from tomostain.io.volumes import read_volume

_MM = np.asarray(SPACING_UM) / 1e3


def write_nrrd(path: Path, encoding: str) -> Path:
    z, y, x = _MM
    about = {"encoding": encoding, "space dimension": 3, "space units": ["mm", "mm", "mm"]}
    about |= {"space directions": np.diag([x, y, z]), "space origin": [0.0, 0.0, 0.0]}
    nrrd.write(str(path), grey(), about, index_order="C", detached_header=path.suffix == ".nhdr", compression_level=6)
    return path


def write_nrrd_text(folder: Path) -> Path:
    z, y, x = _MM
    lines = ("NRRD0004", "type: uint16", "dimension: 3", f"sizes: {' '.join(str(n) for n in SHAPE[::-1])}")
    lines += ("endian: little", f"spacings: {x} {y} {z}", "encoding: ascii", "", "")
    text = " ".join(str(value) for value in grey().ravel()) + "\n"
    (folder / "ct.nrrd").write_text("\n".join(lines) + text)
    return folder / "ct.nrrd"


def strict_nrrd_text(path: Path) -> Look:
    head, _, text = path.read_text().partition("\n\n")
    about = nrrd.read_header(head.splitlines(keepends=True))
    if not {"encoding", "spacings"} <= set(about) or about["encoding"].lower() not in ("ascii", "text", "txt"):
        raise ValueError("another header")
    numbers = [int(word) for word in text.split()]
    dtype = np.dtype({"uint16": "u2", "int16": "i2", "uint8": "u1", "float": "f4"}[about["type"]])
    values = np.array(numbers).astype(dtype).reshape(about["sizes"][::-1])
    if not np.array_equal(values, np.array(numbers).reshape(values.shape)):
        raise ValueError("beyond the type")
    return look(values, about["spacings"][::-1] * 1e3)


def write_nhdr_of_nifti(folder: Path) -> Path:
    """A header that takes the last bytes of a gzipped NIfTI, as neuroimaging tools write it."""
    path = write_nifti(folder / "ct.nii.gz")
    z, y, x = _MM
    lines = ("NRRD0005", "type: short", "dimension: 3", "space: right-anterior-superior", "encoding: gzip")
    lines += (f"sizes: {' '.join(str(n) for n in SHAPE[::-1])}", "byteskip: -1", "endian: little")
    lines += ('space units: "mm" "mm" "mm"', f"space directions: ({x},0,0) (0,{y},0) (0,0,{z})")
    (folder / "ct.nhdr").write_text("\n".join((*lines, f"data file: {path.name}", "")))
    return folder / "ct.nhdr"


def strict_nrrd(path: Path) -> Look:
    values, about = nrrd.read(str(path), index_order="C")
    if set(about["space units"]) != {"mm"}:
        raise ValueError("another unit")
    edges = np.linalg.norm(np.asarray(about["space directions"], dtype=float), axis=1)
    return look(values, edges[::-1] * 1e3)


def write_itk(path: Path, *, compressed: bool = False) -> Path:
    image = SimpleITK.GetImageFromArray(grey())
    image.SetSpacing([float(edge) for edge in _MM[::-1]])
    SimpleITK.WriteImage(image, str(path), useCompression=compressed)
    return path


def strict_itk(path: Path) -> Look:
    head = (path.read_bytes()[:4096].partition(b"ElementDataFile")[0]).decode("latin-1").lower()
    if "hand" in head or head.count("dimsize") != 1:
        raise ValueError("not what ITK writes")
    image = SimpleITK.ReadImage(str(path), imageIO="MetaImageIO")
    return look(SimpleITK.GetArrayFromImage(image), np.asarray(image.GetSpacing())[::-1] * 1e3)


def write_nifti(path: Path, *, slope: float = 1.0, order: str = "<") -> Path:
    header = nibabel.Nifti1Header(endianness=order)
    header.set_data_dtype(np.int16)
    header.set_xyzt_units("mm")
    image = nibabel.Nifti1Image(grey("int16").T, np.diag([*_MM[::-1], 1.0]), header)
    image.header.set_slope_inter(slope, 3.0 if slope != 1.0 else 0.0)
    nibabel.save(image, path)
    return path


def strict_nifti(path: Path) -> Look:
    raw = path.read_bytes()
    if path.suffix == ".gz":
        raw = gzip.decompress(raw)
    image = nibabel.Nifti1Image.from_bytes(raw)
    if image.header.get_xyzt_units()[0] not in ("mm", "unknown"):
        raise ValueError("another unit")
    values = image.dataobj.get_unscaled().T
    values = values.reshape(values.shape[-3:])
    slope, intercept = float(image.dataobj.slope), float(image.dataobj.inter)
    if (slope, intercept) != (1.0, 0.0):
        values = values.astype(np.float32) * np.float32(slope) + np.float32(intercept)
    return look(values, abs(np.asarray(image.header["pixdim"][1:4], dtype=float))[::-1] * 1e3)


def write_isq(folder: Path) -> Path:
    head = bytearray(512)
    z, y, x = SHAPE
    head[:16] = b"CTDATA-HEADER_V1"
    edges = [round(n * edge * 1000) for n, edge in zip((x, y, z), SPACING_UM[::-1], strict=True)]
    struct.pack_into("<7i", head, 16, 3, 2 * x * y * z, 0, 1, 2, 0, 0)
    struct.pack_into("<6i", head, 44, x, y, z, *edges)
    struct.pack_into("<i", head, 88, 4096)
    struct.pack_into("<i", head, 508, 1)
    (folder / "scan.ISQ").write_bytes(bytes(head) + bytes(512) + grey("int16").astype("<i2").tobytes())
    return folder / "scan.ISQ"


def strict_isq(path: Path) -> Look:
    raw = path.read_bytes()
    if raw[:16] != b"CTDATA-HEADER_V1":
        raise ValueError("no ISQ")
    x, y, z, *edges = struct.unpack_from("<6i", raw, 44)
    (scaling,), (blocks,) = struct.unpack_from("<i", raw, 88), struct.unpack_from("<i", raw, 508)
    if min(x, y, z, blocks + 1, *edges) < 1:
        raise ValueError("sizes below one")
    begin = (blocks + 1) * 512
    stored = np.frombuffer(raw[begin : begin + 2 * x * y * z], "<i2").reshape(z, y, x)
    values = stored.astype(np.float32) * np.float32(1 / scaling) if scaling > 1 else stored
    return look(values, [edge / n for edge, n in zip(edges[::-1], (z, y, x), strict=True)])


def write_aim(folder: Path) -> Path:
    z, y, x = SHAPE
    log = b"! processing log\n" + b"Mu_Scaling                    4096\n" + b"Energy [V]       45000\n"
    numbers = [0, 0, 0, x, y, z, *[0] * 15, *(round(edge * 1000) for edge in SPACING_UM[::-1])]
    about = struct.pack("<3i", 0, 0, 0) + struct.pack("<i", 0x00020002) + struct.pack("<24q", *numbers)
    before = struct.pack("<5q", 40, 224, len(log), 2 * x * y * z, 0)
    path = folder / "scan.AIM"
    path.write_bytes(
        b"AIMDATA_V030   \0" + before + about.ljust(224, b"\0") + log + grey("int16").astype("<i2").tobytes()
    )
    return path


def strict_aim(path: Path) -> Look:
    raw = path.read_bytes()
    before, about, log_bytes = struct.unpack_from("<3q", raw, 16)
    if raw[:12] != b"AIMDATA_V030" or (before, about) != (40, 224) or log_bytes < 0:
        raise ValueError("no AIM")
    (kind,) = struct.unpack_from("<i", raw, 68)
    numbers = struct.unpack_from("<24q", raw, 72)
    x, y, z = numbers[3:6]
    begin = 16 + 40 + 224 + log_bytes
    dtype = np.dtype({0x00020002: "<i2", 0x00170002: "<u2", 0x00160001: "u1", 0x001A0004: "<f4", 0x00010001: "i1",
                      0x000D0001: "u1", 0x00030004: "<i4"}[kind])  # fmt: skip
    stored = np.frombuffer(raw[begin : begin + dtype.itemsize * x * y * z], dtype).reshape(z, y, x)
    scaling = next(
        (float(line.split()[-1]) for line in raw[280 : 280 + log_bytes].decode("latin-1").splitlines()
         if line.lower().startswith("mu_scaling ")), 0.0)  # fmt: skip
    calibrated = dtype.itemsize == 2 and scaling > 1
    values = stored.astype(np.float32) * np.float32(1 / scaling) if calibrated else stored
    return look(values, np.asarray(numbers[21:24])[::-1] / 1e3)


def write_npy(folder: Path) -> Path:
    np.save(folder / "ct.npy", grey("float32"))
    return folder / "ct.npy"


def strict_npy(path: Path) -> Look:
    return look(np.load(path, allow_pickle=False), SPACING_UM)


def write_raw(folder: Path) -> Path:
    grey().astype(">u2").tofile(folder / "ct.raw")
    return folder / "ct.raw"


def read_raw(path: Path) -> Look:
    opened = read_volume(path, spacing_um=SPACING_UM, shape=SHAPE, dtype="uint16be")
    return look(opened, opened.grid.spacing_um)


def strict_raw(path: Path) -> Look:
    return look(np.frombuffer(path.read_bytes(), ">u2").reshape(SHAPE), SPACING_UM)


def outside(key: bytes) -> Callable[[Target], None]:
    """The header takes its values from a file outside its folder: one that is there, or one that never answers."""

    def change(t: Target) -> None:
        t.exact = True
        other = t.inside.parent / "secret.raw"
        other.write_bytes(b"\x55" * (2 * int(np.prod(SHAPE))))
        named = t.pick(("../secret.raw", str(other), "./../secret.raw", "/dev/zero", "/dev/stdin", "/proc/self/mem"))
        lines = t.path.read_bytes().split(b"\n")
        found = [i for i, line in enumerate(lines) if line.lower().startswith(key.lower())]
        mark = b" = " if key == b"ElementDataFile" else b": "
        lines[found[0]] = key + mark + named.encode()
        t.path.write_bytes(b"\n".join(lines))

    return change


def lists(key: bytes) -> Callable[[Target], None]:
    """The header takes its values from a list or pattern of files, or from itself."""

    def change(t: Target) -> None:
        t.exact = True
        named = t.pick(("LIST", "LIST 3", "%03d.raw 0 10 1", t.path.name, ".", "..", "", "LOCAL", "~", "\0"))
        lines = t.path.read_bytes().split(b"\n")
        found = [i for i, line in enumerate(lines) if line.lower().startswith(key.lower())]
        mark = b" = " if key == b"ElementDataFile" else b": "
        lines[found[0]] = key + mark + named.encode()
        t.path.write_bytes(b"\n".join(lines))

    return change


def other_type(t: Target) -> None:
    """The binary code of the values' type is another: NIfTI's datatype and bitpix, AIM's type."""
    code = int(t.pick((0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 768, 1024, 1536, 1792, 2304, -1, 32767)))

    def change(raw: bytearray) -> None:
        if raw[:4] == b"AIMD":
            struct.pack_into(
                "<I", raw, 68, t.pick((0x00160001, 0x001A0004, 0x00170002, 0x00060003, 0, 2**32 - 1, code % 99))
            )
        else:
            order = "<" if struct.unpack_from("<i", raw, 0)[0] == 348 else ">"
            struct.pack_into(order + "h", raw, 70, code)
            if t.rng.random() < 0.5:
                struct.pack_into(order + "h", raw, 72, t.pick((8, 16, 32, 64, 128, 0, -8)))

    if t.path.suffix == ".gz":
        raw = bytearray(gzip.decompress(t.path.read_bytes()))
        change(raw)
        t.path.write_bytes(gzip.compress(raw, mtime=0))
    else:
        raw = bytearray(t.path.read_bytes())
        change(raw)
        t.path.write_bytes(raw)


def stream_bomb(t: Target) -> None:
    """The compressed values unfold to 5 GiB; the header may say so, too."""
    t.exact = True
    raw = t.path.read_bytes()
    if t.path.suffix == ".mhd":
        t.path.with_suffix(".zraw").write_bytes(zlib_bomb())
        return
    if t.path.name.endswith(".nii.gz"):
        head = bytearray(gzip.decompress(raw)[:352])
        if t.rng.random() < 0.5:
            struct.pack_into("<4h", head, 40, 3, 32000, 32000, 3)
        t.path.write_bytes(gzip.compress(bytes(head), mtime=0) + gzip_bomb())
        return
    end = raw.find(b"ElementDataFile = LOCAL\n") + 24 if b"ElementDataFile" in raw else raw.find(b"\n\n") + 2
    head = bytearray(raw[:end])
    if t.rng.random() < 0.5:
        head = head.replace(b"43 37 11", b"43000 37000 2")
    t.path.write_bytes(bytes(head) + (zlib_bomb() if b"ElementDataFile" in raw else gzip_bomb()))


_BOMB = MappingProxyType({"stream-bomb": stream_bomb})
_TYPE = MappingProxyType({"other-type": other_type})
_NHDR = MappingProxyType({"values-outside": outside(b"data file"), "values-listed": lists(b"data file")})
_MHD = MappingProxyType({"values-outside": outside(b"ElementDataFile"), "values-listed": lists(b"ElementDataFile")})

HEADERS = {
    "nrrd": Format(lambda folder: write_nrrd(folder / "ct.nrrd", "raw"), volume(), strict_nrrd),
    "nrrd-gzip": Format(lambda folder: write_nrrd(folder / "ct.nrrd", "gzip"), volume(), strict_nrrd, _BOMB),
    "nrrd-text": Format(write_nrrd_text, volume(), strict_nrrd_text, endless=True),
    "nhdr-nifti": Format(write_nhdr_of_nifti, volume(), strict_nrrd, _NHDR),
    "nhdr": Format(lambda folder: write_nrrd(folder / "ct.nhdr", "raw"), volume(), strict_nrrd, _NHDR),
    "mha": Format(lambda folder: write_itk(folder / "ct.mha"), volume(), strict_itk),
    "mha-deflate": Format(lambda folder: write_itk(folder / "ct.mha", compressed=True), volume(), strict_itk, _BOMB),
    "mhd-deflate": Format(lambda folder: write_itk(folder / "ct.mhd", compressed=True), volume(), strict_itk, _BOMB),
    "mhd": Format(lambda folder: write_itk(folder / "ct.mhd"), volume(), strict_itk, _MHD),
    "nifti": Format(lambda folder: write_nifti(folder / "ct.nii", slope=0.5, order=">"), volume(), strict_nifti, _TYPE),
    "nifti-gzip": Format(lambda folder: write_nifti(folder / "ct.nii.gz"), volume(), strict_nifti, {**_BOMB, **_TYPE}),
    "isq": Format(write_isq, volume(), strict_isq),
    "aim": Format(write_aim, volume(), strict_aim, _TYPE),
    "npy": Format(write_npy, volume(SPACING_UM), strict_npy),
    "raw": Format(write_raw, read_raw, strict_raw),
}
