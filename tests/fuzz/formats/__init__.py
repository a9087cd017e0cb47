"""The table of formats under test: a reader joins by one line."""

from types import MappingProxyType

from fuzz.formats.ours import OURS
from fuzz.formats.slides import SLIDES
from fuzz.formats.tiffs import TIFFS
from fuzz.formats.zarrs import ZARRS

FORMATS = MappingProxyType({**TIFFS, **ZARRS, **SLIDES, **OURS})
