"""HDF5 and NeXus: which data set is taken, which links and parts are followed, where the voxel size is believed."""

import pickle
import zlib

import h5py
import numpy as np
import pytest

from tomostain.io.volumes import read_volume

UNIT = {"spacing_um": (1, 1, 1)}


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
def test_a_wrong_choice_is_reported(scan, ct, inside, fault):
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
def test_attributes_are_accepted_where_they_are_unambiguous(scan, ct, stated, spacing):
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
    with pytest.raises(ValueError, match=r"scan\.h5 is a virtual data set of parts that are not boxes"):
        read_volume(scan(lambda file: _virtual(file, ct, parts)), **UNIT)
