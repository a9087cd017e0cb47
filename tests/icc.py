"""A colour profile as scanners embed them, made from its three primaries."""

import struct

import numpy as np

TO_XYZ = np.array([[0.6097, 0.2053, 0.1492], [0.3111, 0.6257, 0.0632], [0.0195, 0.0609, 0.7446]])
"""A wide space (Adobe RGB's primaries), adapted to D50."""
SRGB_TO_XYZ = np.array([[0.4361, 0.3851, 0.1431], [0.2225, 0.7169, 0.0606], [0.0139, 0.0971, 0.7141]])


def wide_profile(gamma=2.2):
    """An ICC profile of three primaries and a gamma, as scanners embed it (ICC.1:2001)."""

    def fixed(values):
        return b"".join(struct.pack(">i", round(value * 65536)) for value in values)

    curve = b"curv\0\0\0\0" + struct.pack(">IHxx", 1, int(gamma * 256))
    text = b"wide\0"
    tags = {
        **{name: b"XYZ \0\0\0\0" + fixed(TO_XYZ[:, i]) for i, name in enumerate((b"rXYZ", b"gXYZ", b"bXYZ"))},
        b"wtpt": b"XYZ \0\0\0\0" + fixed((0.9642, 1.0, 0.8249)),
        **dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve),
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", len(text)) + text + b"\0" * 81,
        b"cprt": b"text\0\0\0\0none\0\0\0\0",
    }
    at, table, body = 132 + 12 * len(tags), struct.pack(">I", len(tags)), b""
    for name, data in tags.items():
        data += b"\0" * (-len(data) % 4)
        table += name + struct.pack(">II", at, len(data))
        at, body = at + len(data), body + data
    head = struct.pack(">I4sI4s4s4s6H", at, b"none", 0x02100000, b"scnr", b"RGB ", b"XYZ ", 2026, 1, 1, 0, 0, 0)
    return head + b"acsp" + b"\0" * 28 + struct.pack(">3i", 63190, 65536, 54061) + b"\0" * 48 + table + body
