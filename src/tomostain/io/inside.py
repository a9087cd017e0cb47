"""Files that a file names are read from the folder of what the user named, and from nowhere else: the one rule for all.

Nothing here imports the rest of the package: decoders in processes of their own use it too.
"""

from __future__ import annotations

import os
from pathlib import Path


class OutsideError(ValueError):
    """A name or a link in the data leads out of the data's own folder."""


def inside_folder(folder: Path, named: str | Path, name: str, *, beside: Path | None = None) -> Path:
    """The file ``named`` by what is called ``name``, with all links resolved, where it lies in or below ``folder``.

    Names are relative to ``beside``, the folder of the file that holds them; by itself that is ``folder``.

    Raises
    ------
    OutsideError
        It lies elsewhere: a path such as ``/etc/passwd`` or ``../x``, or a symbolic link that leads there.
    """
    file = (beside or folder) / named
    resolved = file.resolve()
    if resolved.is_relative_to(folder.resolve()):
        return resolved
    linked = Path(os.path.normpath(file)).is_relative_to(os.path.normpath(folder))
    source = f"{named}, a link to {resolved}," if linked else f"{named},"
    raise OutsideError(f"{name} takes its values from {source} outside its own folder; copy that file into it")
