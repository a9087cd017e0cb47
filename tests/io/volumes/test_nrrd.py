"""NRRD in the dialects of the programs that write it, against pynrrd; what is not read is named."""

import bz2
import gzip

import nibabel
import nrrd
import numpy as np
import pytest

from tomostain.io.volumes import read_volume

VALUES = np.random.default_rng(0).integers(0, 60_000, (4, 5, 6)).astype("<u2")
BASE = ("type: uint16", "dimension: 3", "sizes: 6 5 4", "endian: little", "spacings: 0.01 0.01 0.02")
VECTORS = ("space directions: (10,0,0) (0,10,0) (0,0,20)", "space dimension: 3")
RAW = VALUES.tobytes()
TEXT = (" ".join(map(str, VALUES.ravel())) + "\n").encode()
OTHER = b"HEADER OF ANOTHER PROGRAM\nAND ITS SECOND LINE\n"


def write(path, lines, data=b"", end=b"\n"):
    lines = [line.encode() for line in ("NRRD0005", *lines)]
    path.write_bytes(end.join(lines) + end * 2 + data if data else end.join(lines) + end)
    return path


def without(*words):
    return tuple(line for line in BASE if not line.startswith(words))


SPACES = {
    "raw": ((*BASE, "encoding: raw"), RAW),
    "comments": (("# made by hand", *BASE, "encoding: raw", "key:=value"), RAW),
    "gzip": ((*BASE, "encoding: gz"), gzip.compress(RAW)),
    "gzip in members": ((*BASE, "encoding: gzip"), gzip.compress(RAW[:99]) + gzip.compress(RAW[99:])),
    "bzip2": ((*BASE, "encoding: bzip2"), bz2.compress(RAW)),
    "text": ((*BASE, "encoding: ASCII"), TEXT),
    "text without byte order": ((*without("endian"), "encoding: txt"), TEXT.replace(b" ", b"\n")),
    "byte skip": ((*BASE, "encoding: raw", f"byte skip: {len(OTHER)}"), OTHER + RAW),
    "byte skip from the end": ((*BASE, "encoding: raw", "byteskip: -1"), OTHER + RAW),
    "byte skip in gzip": ((*BASE, "encoding: gzip", f"byte skip: {len(OTHER)}"), gzip.compress(OTHER + RAW)),
    "byte skip from the end of gzip": ((*BASE, "encoding: gzip", "byte skip: -1"), gzip.compress(OTHER + RAW)),
    "line skip": ((*BASE, "encoding: raw", "line skip: 2"), OTHER + RAW),
    "line and byte skip": ((*BASE, "encoding: raw", "lineskip: 1", "byteskip: 20"), OTHER + RAW),
    "line skip before gzip": ((*BASE, "encoding: gzip", "line skip: 2"), OTHER + gzip.compress(RAW)),
    "line skip before text": ((*BASE, "encoding: text", "line skip: 2"), OTHER + TEXT),
    "microns": ((*without("spac"), *VECTORS, 'space units: "microns" "um" "micron"', "encoding: raw"), RAW),
    "units of spacings": (
        (*without("spac"), "spacings: 10 10 20", 'units: "um" "um" "um"', "encoding: raw"),
        RAW,
    ),
    "decimal commas": ((*without("spac"), "spacings: 0,01 0,01 0,02", "encoding: raw"), RAW),
    "none first": (
        ("type: uint16", "dimension: 4", "sizes: 1 6 5 4", "endian: little", "encoding: raw", "space: LPS",
         "space directions: none (0.01,0,0) (0,0.01,0) (0,0,0.02)", "kinds: vector domain domain domain"),
        RAW,
    ),
    "none last": (
        ("type: uint16", "dimension: 4", "sizes: 6 5 4 1", "endian: little", "encoding: raw", "space: LPS",
         "space directions: (0.01,0,0) (0,0.01,0) (0,0,0.02) none", "kinds: domain domain domain list"),
        RAW,
    ),
    "one time point": (
        ("type: uint16", "dimension: 4", "sizes: 6 5 4 1", "endian: little", "encoding: raw",
         "spacings: 0.01 0.01 0.02 nan"),
        RAW,
    ),
    "one of four by spacings": (
        ("type: uint16", "dimension: 4", "sizes: 1 6 5 4", "endian: little", "encoding: raw",
         "spacings: nan 0.01 0.01 0.02"),
        RAW,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("lines", "data"), SPACES.values(), ids=SPACES)
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_dialects_are_read_as_pynrrd_reads_them(tmp_path, request, lines, data, end):
    path = write(tmp_path / "a.nrrd", lines, data, end)
    volume = read_volume(path, spacing_um=None if "nan 0.01" not in str(lines) else (20, 10, 10))
    np.testing.assert_array_equal(volume[:], VALUES)
    np.testing.assert_array_equal(volume[2, 1:3], VALUES[2, 1:3])
    assert volume.grid.spacing_um == (20.0, 10.0, 10.0)
    if end == b"\n" and "0,01" not in str(lines) and "endian" in str(lines) and "in " not in request.node.callspec.id:
        np.testing.assert_array_equal(np.squeeze(nrrd.read(str(path), index_order="C")[0]), VALUES)


@pytest.mark.parametrize("gzipped", [False, True])
@pytest.mark.parametrize("skip", ["byteskip: -1", "byte skip: 352"])
def test_a_header_beside_a_nifti_is_read(tmp_path, gzipped, skip):
    """As the tools of Brigham's neuroimaging laboratory write x.nhdr for x.nii.gz."""
    nibabel.save(nibabel.Nifti1Image(VALUES.T, np.diag([9, 9, 9, 1])), tmp_path / "x.nii")
    file = "x.nii"
    if gzipped:
        file = "x.nii.gz"
        (tmp_path / file).write_bytes(gzip.compress((tmp_path / "x.nii").read_bytes()))
    lines = ("# generated", "type: unsigned short", "dimension: 3", "space: right-anterior-superior", "sizes: 6 5 4")
    lines += (skip, "endian: little", f"encoding: {'gzip' if gzipped else 'raw'}", 'space units: "mm" "mm" "mm"')
    lines += ("space origin: (1,2,3)", "space directions: (0.01,0,0) (0,0.01,0) (0,0,0.02)", f"data file: {file}")
    volume = read_volume(write(tmp_path / "x_nifti.nhdr", lines))
    np.testing.assert_array_equal(volume[:], VALUES)
    assert volume.grid.spacing_um == (20.0, 10.0, 10.0)
    assert volume.grid.origin_um == (3000.0, 2000.0, 1000.0)


def test_two_axes_are_one_plane(tmp_path):
    lines = ("type: uint16", "dimension: 2", "sizes: 6 5", "endian: little", "encoding: raw", "spacings: 0.01 0.02")
    volume = read_volume(write(tmp_path / "a.nrrd", lines, VALUES[0].tobytes()))
    np.testing.assert_array_equal(volume[0], VALUES[0])
    assert volume.grid.spacing_um == (20.0, 20.0, 10.0)


@pytest.mark.parametrize(
    ("lines", "fault"),
    [
        (("encoding: raw", "data file: LIST\na.raw\nb.raw"), r"takes its values from several files \(LIST\)"),
        (("encoding: raw", "data file: s%03d.raw 1 4 1"), r"takes its values from several files"),
        (("encoding: hex",), r"is encoded as 'hex'.*save it as raw or gzip"),
        (("encoding: raw", "byte skip: -2"), r"is encoded as .raw. \(byte skip -2\)"),
        (("encoding: raw", "line skip: -1"), r"skips -1 lines"),
        (("encoding: raw", "data file: gone.raw"), r"takes its values from gone\.raw, which is not there"),
    ],
)
def test_what_is_not_read_is_named(tmp_path, lines, fault):
    with pytest.raises(ValueError, match=rf"a\.nhdr {fault}"):
        read_volume(write(tmp_path / "a.nhdr", (*BASE, *lines)))


@pytest.mark.parametrize("data", [b"1 2 x", b"1 " * 119, b"1 " * 121, b"70000 " * 120, b"1" * 10_000, b"-1 " * 120])
def test_text_that_is_not_the_values_is_refused(tmp_path, data):
    path = write(tmp_path / "a.nrrd", (*BASE, "encoding: ascii"), data)
    with pytest.raises(ValueError, match=r"a\.nrrd"):
        read_volume(path)[:]


@pytest.mark.parametrize(
    "line",
    [
        "spacings: ten ten ten",
        "spacings: 0.01 0.01",
        "spacings: 0 0 0",
        "spacings: nan nan nan",
        "spacings: inf 1 1",
        "space directions: (0,01,0,0) (0,0,01,0) (0,0,0,02)",
        "space directions: none none none",
        "spacings: 1 1 1",
        "spacings: 0.01 0.01 1.0",
        "spacings: 1e300 1e300 1e300",
    ],
)
def test_the_users_voxel_size_wins_over_what_cannot_be_read_or_trusted(tmp_path, line):
    extra = ("space dimension: 3",) if "directions" in line else ()
    path = write(tmp_path / "a.nrrd", (*without("spac"), line, *extra, "encoding: raw"), RAW)
    with pytest.raises(ValueError, match=r"a\.nrrd.*; pass --spacing-um z y x"):
        read_volume(path)
    volume = read_volume(path, spacing_um=(3, 2, 1))
    np.testing.assert_array_equal(volume[:], VALUES)
    assert volume.grid.spacing_um == (3.0, 2.0, 1.0)


def test_a_unit_nobody_knows_is_refused(tmp_path):
    path = write(tmp_path / "a.nrrd", (*BASE, 'units: "pixel" "pixel" "pixel"', "encoding: raw"), RAW)
    with pytest.raises(ValueError, match=r"a\.nrrd has no voxel size; pass --spacing-um z y x"):
        read_volume(path)


@pytest.mark.parametrize("lost", [1, 30, 300])
def test_a_stream_that_breaks_off_is_not_counted_from_its_end(tmp_path, lost):
    packed = gzip.compress(OTHER * 20 + RAW, 0)[:-lost]
    path = write(tmp_path / "a.nrrd", (*BASE, "encoding: gzip", "byte skip: -1"), packed)
    with pytest.raises(ValueError, match=r"a\.nrrd is truncated; copy or export it again"):
        read_volume(path)[:]
