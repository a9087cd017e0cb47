"""The decoding process: one JSON line in, one JSON line and the pixels out, until its input ends.

``{"op": "open", "kind": KIND, "path": PATH}`` returns the file's metadata;
``{"op": "read", ..., "level": n, "window": [top, bottom, left, right]}`` with ``shape``, ``dtype`` and the raw values.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
import warnings
from collections.abc import Callable
from typing import Any, BinaryIO, Protocol

import numpy as np
import numpy.typing as npt

from tomostain.io.contained.limits import allow
from tomostain.io.contained.seen import Seen


class Decoder(Protocol):
    """An open file: ``about`` is JSON, ``read`` returns a window of one level."""

    about: dict[str, Any]

    def read(self, level: int, window: tuple[int, int, int, int]) -> npt.NDArray[Any]: ...


KINDS = {
    "tiff": "tomostain.io.contained.tiff:TiffSlide",
    "openslide": "tomostain.io.contained.scanner:ScannerSlide",
    "tiff kind": "tomostain.io.contained.tiff:TiffKind",
    "czi": "tomostain.io.contained.zeiss:ZeissSlide",
    "picture": "tomostain.io.contained.picture:Picture",
    "values": "tomostain.io.contained.picture:Values",
}
"""Kinds of files, and the class that opens each."""
_MOST_OPEN = 4


class OpenFiles:
    """The open files, the latest used last."""

    def __init__(self, limit: Callable[[int], None] = allow) -> None:
        self._limit = limit
        self._open: dict[tuple[str, str, int], Decoder] = {}

    def reply(self, request: dict[str, Any]) -> tuple[dict[str, Any], npt.NDArray[Any] | None]:
        """Carry out a request; whatever a library raises becomes an ``error``."""
        try:
            top, bottom, left, right = request.get("window", (0, 0, 0, 0))
            self._limit((bottom - top) * (right - left) * request.get("bytes", 3))
            file = self._file(request["kind"], request["path"])
            if request["op"] == "open":
                return file.about, None
            values = np.ascontiguousarray(file.read(request["level"], (top, bottom, left, right)))
            return {"shape": values.shape, "dtype": values.dtype.str}, values
        except MemoryError:
            self._open.clear()
            gc.collect()
            return {
                "error": "decoding it takes far more memory than its pixels; it is damaged, or made to exhaust memory"
            }, None
        except Exception as error:  # whatever the libraries raise on a broken file
            text = " ".join(str(error).split())[:300]
            return {
                "error": text if isinstance(error, ValueError) and text else f"{type(error).__name__}: {text}"
            }, None

    def _file(self, kind: str, path: str) -> Decoder:
        key = (kind, path, os.stat(path).st_mtime_ns)
        file = self._open.pop(key, None)
        if file is None:
            module, _, name = KINDS[kind].partition(":")
            opened = getattr(importlib.import_module(module), name)(path)
            file = Seen(opened) if hasattr(opened, "orientation") else opened
            while len(self._open) >= _MOST_OPEN:
                self._open.pop(next(iter(self._open)))
        self._open[key] = file
        return file


def serve(requests: BinaryIO, replies: BinaryIO) -> None:
    """Reply until there are no more requests."""
    files = OpenFiles()
    for line in requests:
        header, values = files.reply(json.loads(line))
        replies.write(json.dumps(header).encode() + b"\n")
        if values is not None:
            replies.write(values.reshape(-1).view(np.uint8).data)
        replies.flush()


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    replies_out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not come between the replies
    serve(sys.stdin.buffer, replies_out)
