"""Volumes out: every format is one function that returns a sink, and one line in ``FORMATS``."""

from tomostain.io.writers.formats import FORMATS, Format, check_room, check_writable, format_of, write_volume

__all__ = ["FORMATS", "Format", "check_room", "check_writable", "format_of", "write_volume"]
