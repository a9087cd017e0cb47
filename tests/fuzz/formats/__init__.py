"""The table of formats under test: a reader joins by one line."""

from types import MappingProxyType

from fuzz.formats.dicom import DICOM
from fuzz.formats.hdf5 import HDF5
from fuzz.formats.headers import HEADERS
from fuzz.formats.ours import OURS
from fuzz.formats.slides import SLIDES
from fuzz.formats.tiffs import TIFFS
from fuzz.formats.zarrs import ZARRS

FORMATS = MappingProxyType({**TIFFS, **DICOM, **HDF5, **ZARRS, **HEADERS, **SLIDES, **OURS})
