"""Steps as Python functions: settings are plain keywords, and messages name them as Python does."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tomostain._imports import nearest


def with_keywords(step: Callable[..., Any]) -> Callable[..., Any]:
    """The step, called with the settings of its recipe as keywords: ``register(ct, slide, out, spacing_um=5)``.

    ``recipe`` may be passed too; keywords change single settings of it.
    """
    signature = inspect.signature(step)
    usual = signature.parameters["recipe"].default
    settings = _settings(type(usual))

    @functools.wraps(step)
    def call(*args: Any, recipe: Any = usual, **keywords: Any) -> Any:
        own = {name: keywords.pop(name) for name in list(keywords) if name in signature.parameters}
        unknown = [name for name in keywords if name not in settings]
        if unknown:
            raise TypeError(f"{step.__name__}() has no setting {unknown[0]!r}; {nearest(unknown[0], settings)}")
        try:
            return step(*args, **own, recipe=_changed(recipe, keywords))
        except (ValueError, OSError) as error:
            if len(error.args) == 1 and isinstance(error.args[0], str):
                error.args = (_without_dashes(error.args[0], settings),)
            raise

    taken = [parameter for name, parameter in signature.parameters.items() if name != "recipe"]
    recipe = signature.parameters["recipe"]
    added = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=settings[name]) for name in settings]
    both = [*taken, recipe, *(parameter for parameter in added if parameter.name not in signature.parameters)]
    call.__signature__ = signature.replace(parameters=both)  # type: ignore[attr-defined]
    return call


def _settings(recipe: type[Any]) -> dict[str, Any]:
    """Names and defaults of the settings of a recipe and of the groups that it embeds."""
    found: dict[str, Any] = {}
    for field in dataclasses.fields(recipe):
        grouped = dataclasses.is_dataclass(field.default) and not isinstance(field.default, type)
        found |= _settings(type(field.default)) if grouped else {field.name: field.default}
    return found


def _changed(recipe: Any, keywords: dict[str, Any]) -> Any:
    """The recipe with some of its settings changed; one value stands for a list of one, and text for a path."""
    hints = typing.get_type_hints(type(recipe))
    changes = {}
    for field in dataclasses.fields(recipe):
        value = getattr(recipe, field.name)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            changes[field.name] = _changed(value, keywords)
        elif field.name in keywords:
            changes[field.name] = _as_declared(keywords[field.name], hints[field.name])
    return dataclasses.replace(recipe, **changes)


def _as_declared(value: Any, hint: Any) -> Any:
    kinds = {typing.get_origin(kind) or kind for kind in (*typing.get_args(hint), hint)}
    if Path in kinds and isinstance(value, str):
        return Path(value)
    if tuple in kinds and value is not None:
        return tuple(value) if isinstance(value, list | tuple) else (value,)
    return value


def _without_dashes(message: str, settings: dict[str, Any]) -> str:
    """The message with ``--spacing-um`` written as ``spacing_um``; commands in backticks stay as they are typed."""

    def plain(found: re.Match[str]) -> str:
        name = found.group(1).replace("-", "_")
        return name if name in settings else found.group(0)

    parts = re.split(r"(`tomostain [^`]*`)", message)
    return "".join(
        part if part.startswith("`tomostain ") else re.sub(r"--([a-z][a-z0-9-]*)", plain, part) for part in parts
    )
