"""What a picture's bytes say before it is decoded: whether it is a TIFF, and the depth and chunks of a PNG."""

from __future__ import annotations

import struct

_TIFF_MARKS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_PNG_MARK = b"\x89PNG\r\n\x1a\n"
_PNG_SAMPLES = {2: 3, 4: 2, 6: 4}
_MOST_CHUNKS = 10**5


def is_tiff(path: str) -> bool:
    """Whether a file begins as a TIFF does, whatever its name."""
    with open(path, "rb") as file:
        return file.read(4) in _TIFF_MARKS


def png_bits(path: str) -> int:
    """Bits per sample of a PNG; 8 for other files."""
    return _png_header(path)[0]


def png_samples(path: str) -> int:
    """Samples per pixel of a PNG; a palette has one, and so have other files."""
    return _PNG_SAMPLES.get(_png_header(path)[1], 1)


def _png_header(path: str) -> tuple[int, int]:
    """Bits per sample and colour type of a PNG, (8, 0) for other files."""
    with open(path, "rb") as file:
        head = file.read(26)
    return (head[24], head[25]) if head.startswith(_PNG_MARK) and len(head) == 26 else (8, 0)


def too_deep(bits: int) -> str:
    """Why colours of more (or fewer) than 8 bits are refused, and what to do."""
    return (
        f"it holds {bits}-bit colours; a slide is 8-bit RGB, and only you know how to scale them: save it as 8-bit RGB "
        "(Fiji: set Brightness/Contrast, then Image > Type > RGB Color)"
    )


def png_chunks(path: str) -> set[bytes]:
    """The names of a PNG's chunks; none of other files."""
    found: set[bytes] = set()
    with open(path, "rb") as file:
        if file.read(8) != _PNG_MARK:
            return found
        for _ in range(_MOST_CHUNKS):
            head = file.read(8)
            if len(head) < 8:
                break
            length, name = struct.unpack(">I4s", head)
            found.add(name)
            file.seek(length + 4, 1)
    return found
