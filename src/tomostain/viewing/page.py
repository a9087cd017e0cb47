"""A study in, the site that shows it out: neuroglancer's client from its wheel, our page around it, the data."""

from __future__ import annotations

import html
import json
from importlib import resources
from pathlib import Path
from typing import Any

from tomostain._imports import require
from tomostain.viewing.server import Site
from tomostain.viewing.state import Study, folder_name, page_facts, section_name, viewer_state

_CLIENT = (".js", ".css", ".wasm", ".html")
_BEFORE = '<link rel="icon" href="data:,"><link rel="stylesheet" href="view.css"><script src="before.js"></script>'
_AFTER = '<script defer src="view.js"></script>'


def study_site(study: Study, folder: Path) -> Site:
    """Everything that the page of a study needs; its sections are written below ``folder``.

    Raises
    ------
    ModuleNotFoundError
        neuroglancer is not installed; the message says how it is.
    """
    folders = {folder_name(number): store.path for number, store in enumerate(study.stores.values())}
    for number, section in enumerate(study.sections):
        folders[section_name(number)] = section.write(folder / f"{section_name(number)}.ome.zarr")
    texts = _client() | {name: own_page(name) for name in ("before.js", "view.js", "view.css")}
    texts[""] = _index(texts.pop("index.html").decode(), study).encode()
    return Site(texts=texts, folders=folders, evaluates=True)


def own_page(name: str) -> bytes:
    """A file of the folder pages/."""
    return (resources.files("tomostain.viewing") / "pages" / name).read_bytes()


def redirect(to: str) -> bytes:
    """A page that leads to another one."""
    there = html.escape(to)
    return (
        f'<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="0; url={there}">'
        f'<title>tomostain</title><a href="{there}">Open the specimen</a>\n'
    ).encode()


def embedded(value: Any) -> str:
    """JSON that can stand inside a script element."""
    return json.dumps(value, allow_nan=False).replace("<", "\\u003c")


def _client() -> dict[str, bytes]:
    """The files of neuroglancer's client."""
    package = require("neuroglancer.static", extra="view")
    client = resources.files(package) / "client"
    return {file.name: file.read_bytes() for file in client.iterdir() if Path(file.name).suffix in _CLIENT}


def _index(page: str, study: Study) -> str:
    """The client's own index.html with our bar, and the study as JSON for our scripts."""
    facts = {**page_facts(study), "state": viewer_state(study)}
    title = html.escape(study.title)
    page = page.replace("<title>neuroglancer</title>", f"<title>{title} \N{MIDDLE DOT} tomostain</title>")
    study_json = f'<script type="application/json" id="study">{embedded(facts)}</script>'
    page = page.replace("<script", f"{study_json}{_BEFORE}<script", 1).replace("</head>", f"{_AFTER}</head>")
    bar = own_page("view.html").decode().replace("TITLE", title)
    return page.replace("<body></body>", f'<body>{bar}<div id="neuroglancer-container"></div></body>')
