"""HDF5 and NeXus: which data set is taken, which links are followed, where the voxel size is believed."""

import pickle
import subprocess
import sys
import zlib

import h5py
import hdf5plugin
import numcodecs
import numpy as np
import pytest

from tomostain.io.volumes import read_volume

UNIT = {"spacing_um": (1, 1, 1)}


@pytest.fixture
def ct(rng):
    return rng.integers(0, 999, (6, 8, 9)).astype(np.uint16)


@pytest.fixture
def scan(tmp_path):
    """Write a file by what a function does to it, and give its path."""

    def make(fill, name="scan.h5"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        with h5py.File(tmp_path / name, "w") as file:
            fill(file)
        return tmp_path / name

    return make


def test_the_clearly_largest_volume_is_taken(scan, ct):
    path = scan(lambda file: file.update({"thumbnail": np.zeros((4, 4, 3)), "deep/down/ct": ct, "flat": ct[0]}))
    np.testing.assert_array_equal(read_volume(path, **UNIT)[:], ct)


def test_volumes_alike_are_listed_and_one_can_be_chosen(scan, ct):
    path = scan(lambda file: file.update({"a/ct": ct, "b": ct + 1}))
    with pytest.raises(ValueError, match=r"several volumes; choose one of scan\.h5::/a/ct, scan\.h5::/b"):
        read_volume(path, **UNIT)
    np.testing.assert_array_equal(read_volume(f"{path}::/b", **UNIT)[:], ct + 1)
    np.testing.assert_array_equal(read_volume(f"{path}::/a", **UNIT)[:], ct)
    assert read_volume(f"{path}::/b", **UNIT).name == "scan.h5::/b"


@pytest.mark.parametrize(
    ("inside", "fault"),
    [("/nowhere", r"holds no /nowhere"), ("/flat", r"has a shape of \(8, 9\)"), ("/../a", r"holds no /\.\.")],
)
def test_a_wrong_choice_is_told(scan, ct, inside, fault):
    path = scan(lambda file: file.update({"a": ct, "flat": ct[0]}))
    with pytest.raises(ValueError, match=rf"scan\.h5.*{fault}"):
        read_volume(f"{path}::{inside}", **UNIT)


def test_old_nexus_marks_its_signal_on_the_data(scan, ct):
    def fill(file):
        file["raw"] = np.zeros((20, 20, 20))
        group = file.create_group("entry/plot")
        group.attrs["NX_class"] = "NXdata"
        group["counts"] = ct
        group["counts"].attrs["signal"] = 1

    np.testing.assert_array_equal(read_volume(scan(fill), **UNIT)[:], ct)


def test_further_axes_of_length_one_are_left_out(scan, ct):
    path = scan(lambda file: file.create_dataset("exported", data=ct[None, :, :, :, None], chunks=(1, 2, 8, 9, 1)))
    with h5py.File(path, "a") as file:
        file["exported"].attrs["axistags"] = (
            '{"axes": [{"key": "t"}, {"key": "z"}, {"key": "y"}, {"key": "x"}, {"key": "c"}]}'
        )
    volume = read_volume(path, **UNIT)
    assert volume.shape == ct.shape
    np.testing.assert_array_equal(volume[2:5, 3], ct[2:5, 3])


def test_axis_tags_in_another_order_are_refused(scan, ct):
    path = scan(lambda file: file.update({"v": ct}))
    with h5py.File(path, "a") as file:
        file["v"].attrs["axistags"] = '{"axes": [{"key": "x"}, {"key": "y"}, {"key": "z"}]}'
    with pytest.raises(ValueError, match=r"has axes x y z; save it with the axes in the order z y x"):
        read_volume(path, **UNIT)


def test_external_links_and_raw_files_in_the_folder_are_followed(scan, ct, tmp_path):
    scan(lambda file: file.update({"entry/data": ct}), "parts/raw.h5")
    path = scan(lambda file: file.update({"ct": h5py.ExternalLink("parts/raw.h5", "/entry/data")}))
    np.testing.assert_array_equal(read_volume(path, **UNIT)[:], ct)
    np.testing.assert_array_equal(read_volume(f"{path}::/ct", **UNIT)[1], ct[1])


@pytest.mark.parametrize("target", ["../outside.h5", "/etc/outside.h5"])
def test_external_links_out_of_the_folder_are_refused_by_their_target(scan, ct, target):
    scan(lambda file: file.update({"ct": ct}), "outside.h5")
    path = scan(lambda file: file.update({"ct": h5py.ExternalLink(target, "/ct")}), "inner/scan.h5")
    with pytest.raises(ValueError, match=rf"scan\.h5::/ct takes its values from {target}, outside its own folder"):
        read_volume(path, **UNIT)


def test_values_kept_in_a_file_outside_the_folder_are_refused(scan):
    external = [("/etc/hostname", 0, h5py.h5f.UNLIMITED)]
    path = scan(lambda file: file.create_dataset("ct", (2, 2, 2), "u1", external=external))
    with pytest.raises(ValueError, match=r"takes its values from /etc/hostname, outside its own folder"):
        read_volume(path, **UNIT)


def test_virtual_data_sets_are_read_from_the_folder_alone(scan, ct):
    scan(lambda file: file.update({"ct": ct}), "part.h5")

    def gather(file, source):
        layout = h5py.VirtualLayout(ct.shape, ct.dtype)
        layout[:] = h5py.VirtualSource(source, "ct", shape=ct.shape)
        file.create_virtual_dataset("all", layout)

    np.testing.assert_array_equal(read_volume(scan(lambda file: gather(file, "part.h5")), **UNIT)[:], ct)
    with pytest.raises(ValueError, match=r"takes its values from \.\./part\.h5, outside"):
        read_volume(scan(lambda file: gather(file, "../part.h5"), "inner/scan.h5"), **UNIT)


def test_links_in_a_circle_end(scan, ct):
    def fill(file):
        file["a"], file["b"] = h5py.SoftLink("/b"), h5py.SoftLink("/a")
        file["group/self"] = h5py.SoftLink("/group")
        ring = file.create_group("ring")
        ring["ring"] = ring
        file["ring/ct"] = ct

    path = scan(fill)
    np.testing.assert_array_equal(read_volume(path, **UNIT)[:], ct)
    with pytest.raises(ValueError, match=r"scan\.h5::/[ab] is a link that leads in a circle"):
        read_volume(f"{path}::/a", **UNIT)


@pytest.mark.parametrize(
    ("stated", "spacing"),
    [
        ({"voxel_size": 0.005, "voxel_size_units": "mm"}, (5, 5, 5)),
        ({"pixel_size_um": 4.5}, (4.5, 4.5, 4.5)),
        ({"x_pixel_size_um": 1, "y_pixel_size_um": 2, "z_pixel_size_um": 3}, (3, 2, 1)),
        ({"element_size_um": [3, 2, 1], "voxel_size_mm": 0.002}, None),
        ({"pixel_size": 0.65}, None),
        ({"voxel_size_um": [1, 2, 3]}, None),
    ],
)
def test_attributes_are_believed_where_they_leave_no_doubt(scan, ct, stated, spacing):
    path = scan(lambda file: file.create_dataset("ct", data=ct).attrs.update(stated))
    if spacing:
        assert read_volume(path).grid.spacing_um == spacing
    else:
        with pytest.raises(
            ValueError, match=r"no voxel size \(.*(states|names no unit|which of its).*pass --spacing-um"
        ):
            read_volume(path)


def test_pixel_size_beside_the_data_counts_with_its_unit(scan, ct):
    def fill(file):
        file["entry/ct"] = ct
        file["entry/pixel_size"] = 6.5e-7
        file["entry/pixel_size"].attrs["units"] = "m"

    assert read_volume(scan(fill)).grid.spacing_um == (0.65, 0.65, 0.65)


def test_uneven_nexus_axes_are_no_voxel_size(scan, ct):
    def fill(file):
        file["ct"] = ct
        file.attrs["axes"] = ["z", "y", "x"]
        for name, size in zip("zyx", ct.shape, strict=True):
            file[name] = np.arange(size) ** 2 * 1e-6
            file[name].attrs["units"] = "m"

    with pytest.raises(ValueError, match="has no voxel size"):
        read_volume(scan(fill))


def test_a_filter_that_is_not_installed_is_named(scan, ct, monkeypatch):
    hdf5plugin = pytest.importorskip("hdf5plugin")
    path = scan(lambda file: file.create_dataset("ct", data=ct, chunks=(2, 8, 9), **hdf5plugin.Bitshuffle()))
    np.testing.assert_array_equal(read_volume(path, **UNIT)[:], ct)
    code = (
        "import sys; sys.modules['hdf5plugin'] = None\n"
        "from tomostain.io.volumes import read_volume\n"
        f"read_volume({str(path)!r}, spacing_um=(1, 1, 1))"
    )
    monkeypatch.setenv("HDF5_PLUGIN_PATH", "/nowhere")
    failed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "compressed with bitshuffle (HDF5 filter 32008)" in failed.stderr
    assert "pip install 'tomostain[formats]'" in failed.stderr


def test_planes_of_deep_chunks_are_decoded_once(scan, rng, bytes_read):
    ct = rng.integers(0, 255, (32, 64, 64), dtype=np.uint8)
    path = scan(lambda file: file.create_dataset("ct", data=ct, chunks=(16, 32, 32), compression="gzip"))
    volume = read_volume(path, **UNIT)
    before = bytes_read()
    np.testing.assert_array_equal(np.stack([volume[z] for z in range(32)]), ct)
    assert bytes_read() - before < 1.3 * path.stat().st_size


def test_sizes_that_the_file_cannot_hold_are_refused(scan):
    path = scan(lambda file: file.create_dataset("ct", (2**14, 2**14, 2**12), "u2", chunks=(1, 64, 64)))
    with pytest.raises(ValueError, match=r"scan\.h5 claims 16384 x 16384 x 4096 uint16 values .*stores \d+ bytes"):
        read_volume(path, **UNIT)


def test_texts_and_records_are_no_grey_values(scan):
    path = scan(lambda file: file.create_dataset("ct", data=np.zeros((2, 2, 2), "S3")))
    with pytest.raises(ValueError, match=r"scan\.h5 holds no three-dimensional data set of numbers"):
        read_volume(path, **UNIT)
    with pytest.raises(ValueError, match=r"scan\.h5::/ct holds \|S3; grey values are"):
        read_volume(f"{path}::/ct", **UNIT)


def _first_chunk(path, change):
    """Store the first chunk anew, its bytes changed after all filters."""
    with h5py.File(path, "a") as file:
        mask, raw = file["ct"].id.read_direct_chunk((0, 0, 0))
        file["ct"].id.write_direct_chunk((0, 0, 0), change(raw), filter_mask=mask)


FILTERS = {
    "none": {},
    "shuffle": {"shuffle": True},
    "sum": {"fletcher32": True},
    "shuffle and sum": {"shuffle": True, "fletcher32": True},
    "deflate": {"compression": "gzip"},
    "deflate, shuffle": {"compression": "gzip", "shuffle": True},
    "deflate, shuffle and sum": {"compression": "gzip", "shuffle": True, "fletcher32": True},
    "lzf": {"compression": "lzf"},
    "lzf, shuffle and sum": {"compression": "lzf", "shuffle": True, "fletcher32": True},
    "szip": {"compression": "szip"},
    "scale-offset": {"scaleoffset": 0},
    **{name: hdf5plugin.Blosc(cname=name) for name in ("lz4", "zstd", "zlib")},
    "blosc2": hdf5plugin.Blosc2(),
    "lz4 alone": hdf5plugin.LZ4(),
    "zstd alone": hdf5plugin.Zstd(),
    **{f"bitshuffle, {name}": hdf5plugin.Bitshuffle(cname=name) for name in ("none", "lz4", "zstd")},
}


@pytest.mark.parametrize("filters", FILTERS.values(), ids=FILTERS)
@pytest.mark.parametrize("dtype", ["<i2", ">f4"])
def test_chunks_of_every_filter_read_as_h5py_reads_them(scan, rng, filters, dtype):
    values = rng.integers(0, 250, (9, 25, 29)).astype(dtype)
    path = scan(lambda file: file.create_dataset("ct", data=values, chunks=(4, 8, 11), **filters))
    volume = read_volume(path, **UNIT)
    np.testing.assert_array_equal(volume[:], values)
    np.testing.assert_array_equal(volume[3:6, 7:9, 10:29], values[3:6, 7:9, 10:29])


@pytest.mark.parametrize("filters", ["none", "shuffle", "sum", "shuffle and sum"])
def test_a_chunk_of_too_few_bytes_is_refused_not_filled_with_memory(scan, ct, filters):
    def fill(file):
        data = file.create_dataset("ct", ct.shape, ct.dtype, chunks=(3, 8, 9), **FILTERS[filters])
        tail = bytes(4 * ("sum" in filters))
        data.id.write_direct_chunk((0, 0, 0), ct[:3].tobytes()[:-40] + tail)
        data.id.write_direct_chunk((3, 0, 0), ct[3:].tobytes() + tail)

    path = scan(fill)
    with pytest.raises(ValueError, match=r"scan\.h5: its chunk at \(0, 0, 0\) holds 392 bytes, not 432"):
        read_volume(path, **UNIT)[0]


@pytest.mark.parametrize("filters", ["deflate", "deflate, shuffle"])
@pytest.mark.parametrize("n", [0, 100, 431, 433, 2000])
def test_a_deflate_stream_that_unpacks_to_another_size_is_refused(scan, ct, filters, n):
    path = scan(lambda file: file.create_dataset("ct", data=ct, chunks=(3, 8, 9), **FILTERS[filters]))
    _first_chunk(path, lambda raw: zlib.compress((zlib.decompress(raw) * 5)[:n]))
    with pytest.raises(
        ValueError, match=r"scan\.h5: its chunk at \(0, 0, 0\)( holds|, .* unpacked into the 432 bytes)"
    ):
        read_volume(path, **UNIT)[0]


@pytest.mark.parametrize("filters", ["sum", "deflate, shuffle and sum", "lzf, shuffle and sum"])
def test_a_wrong_checksum_is_told(scan, ct, filters):
    path = scan(lambda file: file.create_dataset("ct", data=ct, chunks=(3, 8, 9), **FILTERS[filters]))
    _first_chunk(path, lambda raw: raw[:50] + bytes([raw[50] ^ 4]) + raw[51:])
    with pytest.raises(ValueError, match=r"scan\.h5"):
        read_volume(path, **UNIT)[0]


@pytest.mark.parametrize("filters", ["deflate", "lzf", "lz4 alone", "zstd alone"])
def test_a_chunk_that_cannot_be_unpacked_is_refused(scan, rng, filters):
    """HDF5's zstd filter hands out memory as it was instead."""
    values = rng.integers(0, 9, (4, 20, 30)).astype("u2")
    path = scan(lambda file: file.create_dataset("ct", data=values, chunks=(4, 20, 30), **FILTERS[filters]))
    _first_chunk(path, lambda raw: raw[: len(raw) // 2] + b"\xff\xff\xff\xff" * 40)
    with pytest.raises(ValueError, match=r"scan\.h5: its chunk at \(0, 0, 0\)(, .* cannot be unpacked| holds)"):
        read_volume(path, **UNIT)[0]


@pytest.mark.parametrize("filters", ["lzf", "lz4", "lz4 alone", "zstd alone", "blosc2", "bitshuffle, lz4", "szip"])
def test_a_chunk_of_a_smaller_chunk_size_is_refused_for_every_filter(scan, rng, filters):
    """As if a header had its chunk size or its type changed: the stored chunk is whole, and too small."""
    values = rng.integers(0, 9, (8, 16, 16)).astype("u2")
    small = scan(
        lambda file: file.create_dataset("ct", data=values[:, :8], chunks=(8, 8, 16), **FILTERS[filters]), "s.h5"
    )
    path = scan(lambda file: file.create_dataset("ct", data=values, chunks=(8, 16, 16), **FILTERS[filters]))
    with h5py.File(small) as file:
        piece = file["ct"].id.read_direct_chunk((0, 0, 0))[1]
    _first_chunk(path, lambda _: piece)
    with pytest.raises(ValueError, match=r"scan\.h5: its chunk at \(0, 0, 0\)"):
        read_volume(path, **UNIT)[0]


def test_chunks_that_were_never_written_read_as_the_fill_value_and_that_is_told(scan, ct):
    def fill(file):
        data = file.create_dataset("ct", ct.shape, "u2", chunks=(3, 8, 9), compression="gzip", fillvalue=7)
        data[:3] = ct[:3]

    volume = read_volume(scan(fill), **UNIT)
    with pytest.warns(UserWarning, match="what is not stored reads as 7"):
        seen = volume[:]
    np.testing.assert_array_equal(seen, np.concatenate([ct[:3], np.full((3, 8, 9), 7)]))


@pytest.mark.parametrize("dtype", ["<u2", ">f4"])
def test_values_in_one_piece_behind_a_user_block_are_read_where_they_lie(tmp_path, ct, dtype):
    with h5py.File(tmp_path / "scan.h5", "w", userblock_size=512) as file:
        file["ct"] = ct.astype(dtype)[None, :, :, :, None]
    volume = read_volume(tmp_path / "scan.h5", **UNIT)
    assert volume.dtype == np.dtype(dtype).newbyteorder("=")
    np.testing.assert_array_equal(volume[2:5, 1:], ct[2:5, 1:])


def _low_level(path, values, filters, precision=16):
    """A data set whose filters and type h5py's own interface does not offer."""
    with h5py.File(path, "w") as file:
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_chunk(values.shape)
        for code, settings in filters:
            plist.set_filter(code, h5py.h5z.FLAG_OPTIONAL, settings)
        kind = h5py.h5t.STD_U16LE.copy()
        kind.set_precision(precision)
        space = h5py.h5s.create_simple(values.shape)
        h5py.h5d.create(file.id, b"ct", kind, space, plist)
        file["ct"][:] = values
    return path


DEFLATE, BITSHUFFLE, ZSTD = (1, (6,)), (32008, (0, 0)), (32015, (3,))


@pytest.mark.parametrize(
    ("filters", "precision", "pack"),
    [
        ([BITSHUFFLE, DEFLATE], 16, zlib.compress),
        ([DEFLATE], 12, zlib.compress),
        ([ZSTD], 16, lambda raw: bytes(numcodecs.Zstd().encode(raw[:9])) + bytes(numcodecs.Zstd().encode(raw))),
    ],
    ids=["bitshuffle then deflate", "12 bits of 16", "zstd in two frames"],
)
def test_a_bomb_in_any_pipeline_of_filters_is_refused(tmp_path, ct, filters, precision, pack):
    path = _low_level(tmp_path / "scan.h5", ct, filters, precision)
    np.testing.assert_array_equal(read_volume(path, **UNIT)[:], ct)
    for bytes_ in (2**25, 100):
        _first_chunk(path, lambda _, n=bytes_: pack(bytes(n)))
        with pytest.raises(ValueError, match=r"scan\.h5: its chunk at .*(cannot be unpacked|does not unpack|holds)"):
            read_volume(path, **UNIT)[:]


def test_filters_that_pack_twice_are_undone_or_refused(tmp_path):
    values = np.ones((4, 40, 40), "u2")
    blosc, bitshuffle_lz4 = (32001, (0, 0, 0, 0, 5, 1, 0)), (32008, (0, 2))
    np.testing.assert_array_equal(
        read_volume(_low_level(tmp_path / "a.h5", values, [blosc, DEFLATE]), **UNIT)[:], values
    )
    with pytest.raises(ValueError, match=r"packed with several filters, one in another"):
        read_volume(_low_level(tmp_path / "b.h5", values, [bitshuffle_lz4, DEFLATE]), **UNIT)[:]


@pytest.mark.parametrize("how", ["external storage", "virtual"])
def test_a_virtual_data_set_made_of_others_that_lead_out_is_refused(scan, ct, how):
    """HDF5 follows what the parts of a virtual data set name, too."""
    scan(lambda file: file.update({"ct": ct}), "outside.h5")

    def virtual(file, source, name):
        layout = h5py.VirtualLayout(ct.shape, ct.dtype)
        layout[:] = h5py.VirtualSource(source, "ct", shape=ct.shape)
        file.create_virtual_dataset(name, layout)

    if how == "virtual":
        scan(lambda file: virtual(file, "../outside.h5", "ct"), "inner/part.h5")
    else:
        external = [("../outside.h5", 0, h5py.h5f.UNLIMITED)]
        scan(lambda file: file.create_dataset("ct", ct.shape, ct.dtype, external=external), "inner/part.h5")
    path = scan(lambda file: virtual(file, "part.h5", "all"), "inner/scan.h5")
    with pytest.raises(
        ValueError, match=r"part\.h5::ct (takes its values from .*outside|is a virtual data set made of)"
    ):
        read_volume(path, **UNIT)


@pytest.mark.parametrize(
    ("attributes", "slope", "intercept"),
    [
        ({"scaling_factor": 0.25, "offset": -8}, 0.25, -2.0),
        ({"scaling_factor": np.float32([0.25])}, 0.25, 0.0),
        ({"scaling": "0.25", "offset": "-8"}, 0.25, -2.0),
        ({"scale_factor": 0.25, "add_offset": -8.0}, 0.25, -8.0),
        ({"RescaleSlope": 0.25, "RescaleIntercept": -8}, 0.25, -8.0),
        ({"offset": -32768}, 1.0, -32768.0),
        ({"scale_factor": 1.0, "add_offset": 0.0}, 1.0, 0.0),
        ({"offset": [0.0, 0.0, 3.0]}, 1.0, 0.0),
    ],
)
def test_scale_and_offset_of_a_data_set_are_honoured(scan, ct, attributes, slope, intercept):
    """NeXus adds its offset before it scales, netCDF's conventions after."""

    def fill(file):
        file["ct"] = ct
        file["ct"].attrs.update(attributes | {"units": "1/cm"})

    volume = read_volume(scan(fill), **UNIT)
    np.testing.assert_allclose(volume[:], ct * slope + intercept, rtol=1e-6)
    assert volume.about["units"] == "1/cm"
    assert (volume.dtype == ct.dtype) == ((slope, intercept) == (1.0, 0.0))


def test_scale_and_offset_beside_a_nexus_signal_are_honoured(scan, ct):
    def fill(file):
        group = file.create_group("entry/data")
        group.attrs.update(NX_class="NXdata", signal="mu")
        group["mu"], group["mu_scaling_factor"], group["mu_offset"] = ct, 0.5, -10

    np.testing.assert_allclose(read_volume(scan(fill), **UNIT)[:], (ct - 10.0) * 0.5)


@pytest.mark.parametrize("scale", [0.0, np.nan, "much", [1.0, 2.0]])
def test_a_scale_that_is_no_number_is_refused(scan, ct, scale):
    def fill(file):
        file["ct"] = ct
        file["ct"].attrs["scaling_factor"] = scale

    with pytest.raises(ValueError, match=r"scan\.h5 states scaling_factor = .*, which does not say how its values are"):
        read_volume(scan(fill), **UNIT)


def nxtomo(file, projections, above="entry"):
    """An NXtomo entry as beamlines write it: keys of images at the detector, angles at the sample, links in NXdata."""
    entry = file.create_group(above)
    entry.attrs["NX_class"] = "NXentry"
    entry["definition"] = "NXtomo"
    detector = entry.create_group("instrument/detector")
    detector["data"], detector["image_key"] = projections, np.zeros(len(projections), int)
    entry["sample/rotation_angle"] = np.linspace(0, 180, len(projections))
    data = entry.create_group("data")
    data.attrs.update(NX_class="NXdata", signal="data")
    data["data"] = h5py.SoftLink(f"/{above}/instrument/detector/data")


def exchange(file, projections):
    """APS Data Exchange."""
    group = file.create_group("exchange")
    group["data"], group["theta"] = projections, np.linspace(0, 180, len(projections))
    group["data_white"], group["data_dark"] = projections[:2], projections[:2]


@pytest.mark.parametrize("layout", [nxtomo, exchange, lambda file, ct: nxtomo(file, ct, "entry1/tomo_entry")])
def test_raw_projections_are_no_volume(scan, ct, layout):
    path = scan(lambda file: layout(file, ct))
    with h5py.File(path) as file:
        places = [
            name for name in ("exchange/data", "exchange/data_white", "entry/instrument/detector/data") if name in file
        ]
    for choice in ("", *(f"::/{place}" for place in places)):
        with pytest.raises(ValueError, match=r"holds raw projections, not a reconstructed .*; reconstruct them first"):
            read_volume(f"{path}{choice}", **UNIT)


@pytest.mark.parametrize("layout", [nxtomo, exchange])
def test_a_reconstruction_beside_its_projections_is_read(scan, ct, layout):
    def fill(file):
        layout(file, np.repeat(ct, 9, axis=0))
        file["reconstruction/values"] = ct
        file.attrs["default"] = "entry" if layout is nxtomo else "reconstruction/values"

    np.testing.assert_array_equal(read_volume(scan(fill), **UNIT)[:], ct)


def _virtual(file, ct, parts, fill=0):
    """A virtual data set whose boxes come from other files: (z's, file, its z's)."""
    layout = h5py.VirtualLayout(ct.shape, ct.dtype)
    for into, source, shape, out_of in parts:
        layout[into] = h5py.VirtualSource(source, "ct", shape=shape)[out_of]
    file.create_virtual_dataset("all", layout, fillvalue=fill)


def test_parts_of_a_virtual_data_set_are_read_and_checked_one_by_one(scan, rng):
    values = rng.integers(0, 900, (9, 16, 18)).astype("u2")
    for i in range(3):
        part = values[3 * i : 3 * i + 3]
        settings = {"chunks": (2, 8, 9), "compression": "gzip"} if i else {}
        scan(lambda file, part=part, settings=settings: file.create_dataset("ct", data=part, **settings), f"p{i}.h5")
    scan(lambda file: file.create_dataset("ct", data=values[4]), "plane.h5")
    parts = [(slice(3 * i, 3 * i + 3), f"p{i}.h5", (3, 16, 18), slice(0, 3)) for i in range(3)]
    path = scan(lambda file: _virtual(file, values, parts))
    volume = read_volume(path, **UNIT)
    np.testing.assert_array_equal(volume[:], values)
    np.testing.assert_array_equal(volume[2:7, 3:11, 5:], values[2:7, 3:11, 5:])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(volume))[1:5, 7], values[1:5, 7])
    bomb = scan(lambda file: file.create_dataset("ct", data=values[3:6], chunks=(2, 8, 9), compression="gzip"), "b.h5")
    with h5py.File(bomb, "a") as file:
        file["ct"].id.write_direct_chunk((0, 8, 9), zlib.compress(bytes(2**24)))
    parts[1] = (slice(3, 6), "b.h5", (3, 16, 18), slice(0, 3))
    volume = read_volume(scan(lambda file: _virtual(file, values, parts), "other.h5"), **UNIT)
    np.testing.assert_array_equal(volume[0:3], values[0:3])
    with pytest.raises(ValueError, match=r"other\.h5, b\.h5: its chunk at \(0, 8, 9\), a .* cannot be unpacked"):
        volume[4]


def test_planes_make_a_virtual_volume_and_holes_in_it_are_reported(scan, rng):
    values = rng.integers(1, 900, (4, 8, 9)).astype("u2")
    for z in range(4):
        scan(lambda file, z=z: file.create_dataset("ct", data=values[z]), f"z{z}.h5")
    parts = [(z, f"z{z}.h5", (8, 9), slice(None)) for z in range(4)]
    np.testing.assert_array_equal(read_volume(scan(lambda file: _virtual(file, values, parts)), **UNIT)[1:], values[1:])
    volume = read_volume(scan(lambda file: _virtual(file, values, parts[:3], fill=7), "holes.h5"), **UNIT)
    with pytest.warns(UserWarning, match=r"holes\.h5 does not store all of its chunks; what is not stored reads as 7"):
        np.testing.assert_array_equal(volume[2:], np.stack([values[2], np.full((8, 9), 7)]))


def test_a_virtual_data_set_of_parts_that_are_no_boxes_is_refused(scan, ct):
    scan(lambda file: file.create_dataset("ct", data=ct[::2]), "even.h5")
    parts = [(slice(0, 6, 2), "even.h5", (3, 8, 9), slice(None))]
    with pytest.raises(ValueError, match=r"scan\.h5 is a virtual data set whose parts are no boxes"):
        read_volume(scan(lambda file: _virtual(file, ct, parts)), **UNIT)
