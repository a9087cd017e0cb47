"""HDF5 and NeXus: scale and offset of values; raw projections are no volume."""

import h5py
import numpy as np
import pytest

from tomostain.io.volumes import read_volume

UNIT = {"spacing_um": (1, 1, 1)}


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


def test_a_reconstruction_with_as_many_planes_as_angles_is_read_and_a_length_is_no_unit_of_its_values(scan, ct):
    def fill(file):
        file["recon"], file["theta"] = ct, np.linspace(0, 180, len(ct))
        file["recon"].attrs["units"] = "um"

    volume = read_volume(scan(fill), **UNIT)
    np.testing.assert_array_equal(volume[:], ct)
    assert "units" not in volume.about
