"""A name that becomes part of a path: checked where it is made and where it is loaded."""

from __future__ import annotations

LONGEST_NAME_BYTES = 120
"""A file name may have 255 bytes; suffixes such as ``.pair.zarr`` and the name of a method are added to it."""
_SEPARATORS = frozenset('/\\:*?"<>|')
_RESERVED = frozenset(
    {"con", "prn", "aux", "nul", *(f"{port}{digit}" for port in ("com", "lpt") for digit in "0123456789¹²³")}
)


def checked_name(name: object, of: str) -> str:
    """Return ``name`` if it can be one part of a path on every system.

    Parameters
    ----------
    name
        Name of a pair, a specimen or a slide, as read or typed.
    of
        What it names, for the message: "pair", "specimen".

    Raises
    ------
    ValueError
        It is not a text, is empty or too long, begins with a dot, holds a separator or a character that cannot be
        printed, begins or ends with a space, ends with a dot, or is reserved on Windows.

    Examples
    --------
    >>> checked_name("S01_slide 3", "pair")
    'S01_slide 3'
    >>> checked_name("../S01", "pair")
    Traceback (most recent call last):
    ...
    ValueError: the pair name '../S01' begins with a dot; use letters, digits, spaces, - and _
    """
    fault = _fault(name)
    if fault:
        shown = repr(name if not isinstance(name, str) or len(name) <= 60 else name[:57] + "...")[:80]
        raise ValueError(f"the {of} name {shown} {fault}; use letters, digits, spaces, - and _")
    return str(name)


def _fault(name: object) -> str:
    if not isinstance(name, str):
        return "is not a text"
    if not name:
        return "is empty"
    try:
        length = len(name.encode())
    except UnicodeEncodeError:
        return "holds a character that cannot be printed"
    if length > LONGEST_NAME_BYTES:
        return f"is longer than {LONGEST_NAME_BYTES} bytes"
    if name.startswith("."):
        return "begins with a dot"
    if found := sorted(_SEPARATORS & set(name)):
        return f"holds {found[0]!r}"
    if not name.isprintable():
        return "holds a character that cannot be printed"
    if name != name.strip() or name.endswith("."):
        return "begins or ends with a space, or ends with a dot"
    if name.partition(".")[0].rstrip().lower() in _RESERVED:
        return "is reserved on Windows"
    return ""
