"""The page: content in, one self-contained HTML text out."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from typing import Any

import jinja2

TEMPLATE = "report.html.j2"


def render(content: Mapping[str, Any], *, template: str = TEMPLATE) -> str:
    """Fill a page's template; text is escaped, a missing entry is an error.

    Raises
    ------
    jinja2.UndefinedError
        The template asks for an entry that ``content`` does not have.
    """
    text = resources.files("tomostain.reporting").joinpath(template).read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(text).render(content)
