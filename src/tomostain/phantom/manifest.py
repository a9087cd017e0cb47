"""What a cohort's folder says about itself: cohort.json in, checked names and paths out."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath
from typing import Any

from tomostain.io.names import checked_name

FILE = "cohort.json"
_PATHS = ("folder", "ct", "labels", "stain_truth", "truth", "slide", "placement", "damage", "registered")


def read_cohort(folder: Path) -> dict[str, Any]:
    """What ``write_cohort`` returned, read from a cohort's folder; names and paths in it stay inside the folder.

    Raises
    ------
    FileNotFoundError
        The folder is not a finished cohort.
    ValueError
        ``cohort.json`` is damaged, or a name or a path in it leads out of the folder.
    """
    file = Path(folder) / FILE
    if not file.is_file():
        raise FileNotFoundError(f"{folder} holds no {FILE}, so it is not a finished phantom cohort")
    try:
        manifest: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        for specimen in manifest["specimens"]:
            checked_name(specimen["name"], "specimen")
            for slide in specimen["slides"]:
                checked_name(slide["name"], "slide")
            parts = [specimen, *specimen["slides"]]
            for path in (part[key] for part in parts for key in _PATHS if key in part):
                if PurePosixPath(path).is_absolute() or not {"..", ""}.isdisjoint(path.split("/")) or "\\" in path:
                    raise ValueError(f"the path {path[:80]!r} leads out of the cohort")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        fault = f"{error} is missing" if isinstance(error, KeyError) else error
        raise ValueError(f"{file} cannot be read as a cohort ({fault}); make it again") from None
    return manifest
