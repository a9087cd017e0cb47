"""Step: CT, stain and slides of a specimen, linked, in the browser; served on this machine, or written as a folder."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from tomostain import runs
from tomostain._settings import Within, check_numbers
from tomostain.viewing.page import redirect, study_site
from tomostain.viewing.sections import load_section
from tomostain.viewing.server import copy_site, serve_until_stopped
from tomostain.viewing.state import Study, viewer_state
from tomostain.viewing.stores import Store, open_store

_PAGE = "v/specimen"
"""Folder of an export that holds the page; neuroglancer's client asks for a /v/ in its address."""


@Parameter(name="*")
@dataclass(frozen=True)
class ViewRecipe:
    """What is shown beside the stain, and where."""

    ct: Path | None = None
    """CT as OME-Zarr; by default the one that was stained."""
    map: tuple[Path, ...] = ()
    """Further OME-Zarr volumes of grey values of the specimen, at any voxel size, shown in colours."""
    slide: tuple[Path, ...] = ()
    """Placements (*.placement.json) of slides to be laid into the volume."""
    port: Annotated[int, Within(0, 65535)] = 0
    """Port on this machine; 0 takes a free one."""
    export: Path | None = None
    """Folder to be written for a static web server, instead of serving."""
    copy_data: bool = False
    """Copy the volumes into the exported folder, instead of linking them."""
    share_state: Path | None = None
    """File (*.json) to be written: the state that any neuroglancer opens; needs --at."""
    at: str | None = None
    """Address (https://...) under which the exported folder will be served."""

    def __post_init__(self) -> None:
        check_numbers(self)
        if self.share_state is not None and not (self.at or "").startswith(("http://", "https://")):
            raise ValueError("--share-state needs --at, the address (https://...) where the exported folder is served")


def view(stained: Path, *, recipe: ViewRecipe = ViewRecipe()) -> Path | None:
    """Show a stained volume beside its CT in the browser, with slides where they were cut.

    The address that is printed works on this machine only, and only with the token in it; nothing can be changed
    through it. Ctrl-C ends it. --export writes a folder for a web server instead, --share-state the state as JSON.

    Parameters
    ----------
    stained
        The volume that `tomostain stain` wrote.

    Returns
    -------
    Path or None
        What was written; None where a page was served.

    Raises
    ------
    FileNotFoundError
        A volume, a placement or its slide is not there.
    ValueError
        A volume is damaged, is being written or cannot be shown, or a placement belongs to another volume.

    Example
    -------
    tomostain view stained.ome.zarr
    tomostain view stained.ome.zarr --ct ct.ome.zarr --slide S01_1.placement.json S01_2.placement.json
    tomostain view stained.ome.zarr --map uncertainty.ome.zarr
    tomostain view stained.ome.zarr --export web/ --share-state web.json --at https://lab.example.org/bone/
    """
    study = _study(Path(stained), recipe)
    if recipe.share_state is not None:
        state = viewer_state(study, root=f"{(recipe.at or '').rstrip('/')}/{_PAGE}/")
        runs.write_text_atomically(recipe.share_state, json.dumps(state, indent=1) + "\n")
    if recipe.export is not None:
        return _export(study, Path(stained), recipe.export, recipe)
    if recipe.share_state is not None:
        return recipe.share_state
    with tempfile.TemporaryDirectory(prefix="tomostain-view-") as folder:
        serve_until_stopped(study_site(study, Path(folder)), study.title, port=recipe.port)
    return None


def _study(stained: Path, recipe: ViewRecipe) -> Study:
    shown = open_store(stained, colours=True)
    ct = open_store(recipe.ct, colours=False) if recipe.ct is not None else _recorded_ct(stained)
    maps = {_layer_name(path): open_store(path, colours=False) for path in recipe.map}
    if len(maps) < len(recipe.map):
        raise ValueError("two maps have the same name; rename one of them")
    sections = tuple(load_section(path, ct, shown) for path in recipe.slide)
    simulated = " (simulated)" if shown.volume.simulated else ""
    return Study(f"{_layer_name(stained)}{simulated}", shown, ct, maps, sections)


def _recorded_ct(stained: Path) -> Store | None:
    """The CT that a staining's record names, where it can be shown; else a sentence that says how."""
    if not runs.is_complete(stained):
        return None
    inputs = [Path(source["path"]) for source in runs.read_record(stained)["inputs"]]
    for path in reversed(inputs[1:]):
        try:
            return open_store(path, colours=False)
        except (ValueError, OSError) as error:
            runs.say(f"the stain is shown without its CT: {error}")
    return None


def _export(study: Study, stained: Path, out: Path, recipe: ViewRecipe) -> Path:
    """Write the page, its sections and the volumes (or links to them) as a folder."""
    stores = list(study.stores.values())
    with runs.output(out, "view", recipe=recipe, inputs=[store.path for store in stores]) as made:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="tomostain-view-") as folder:
            site = study_site(study, Path(folder))
            copy_site(site, out / _PAGE, copy=recipe.copy_data, always=Path(folder))
        (out / "index.html").write_bytes(redirect(f"{_PAGE}/"))
        made.results |= _about(study, recipe)
    return out


def _about(study: Study, recipe: ViewRecipe) -> dict[str, Any]:
    return {
        "layers": list(study.stores),
        "slides": len(study.sections),
        "data": "copied" if recipe.copy_data else "linked",
    }


def _layer_name(path: Path) -> str:
    return path.name.partition("::")[0].removesuffix(".zarr").removesuffix(".ome")
