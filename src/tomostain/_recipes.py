"""Recipes: settings in a YAML file, read as if they had been typed."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable, Hashable
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from tomostain._imports import nearest

_LARGEST = 2**20
"""Bytes of the largest file that is read as a recipe."""
_LONGEST = 4096
"""Characters of the longest value: as many as a path may have."""


class _Loader(yaml.SafeLoader):
    """YAML whose scalars stay the text that was written, but for null; a key may stand only once."""

    yaml_implicit_resolvers = {  # noqa: RUF012 (as PyYAML declares it)
        first: [(tag, pattern) for tag, pattern in known if tag == "tag:yaml.org,2002:null"]
        for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for key in keys:
            if keys.count(key) > 1:
                raise ValueError(f"setting {key!r} stands there {keys.count(key)} times; keep one")
        return super().construct_mapping(node, deep)


def find_recipe(name: str, word: str) -> Path:
    """The recipe file that ``name`` stands for: a path, or a recipe of command ``word`` that ships with tomostain.

    Raises
    ------
    FileNotFoundError
        There is neither a file nor a recipe of that name.
    """
    if Path(name).is_file():
        return Path(name)
    folder = resources.files("tomostain") / "recipes"
    shipped = {Path(file.name).stem.removeprefix(f"{word}_"): file for file in folder.iterdir() if word in file.name}
    if name in shipped:
        return Path(str(shipped[name]))
    hint = f"; {nearest(name, shipped)}" if shipped and "/" not in name and not Path(name).suffix else ""
    raise FileNotFoundError(f"there is no recipe {name}{hint}")


def read_recipe(path: Path, step: Callable[..., Any]) -> dict[str, Any]:
    """The settings in a YAML file, checked to be settings of the step; values are text, as if typed.

    Raises
    ------
    ValueError
        No mapping, lists within lists, a key twice, or one that the step does not have; the nearest one is named.
    """
    if not path.is_file():  # opening a named pipe would wait for ever
        raise ValueError(f"{path} is not a recipe: there is no such file")
    if path.stat().st_size > _LARGEST:
        raise ValueError(f"{path} is too large to be a recipe")
    try:
        text = yaml.load(path.read_bytes(), _Loader)
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise ValueError(f"{path} cannot be read as a recipe: {' '.join(str(error).split())}") from None
    if not isinstance(text, dict):
        raise ValueError(f"{path} is not a recipe: it must hold one 'setting: value' a line")
    known = settings_of(step)
    settings = {}
    for key, value in text.items():
        name = str(key).replace("-", "_")
        if name not in known:
            raise ValueError(f"{path}: unknown setting {key!r}; {nearest(str(key), known)}")
        if name in settings:
            raise ValueError(f"{path}: setting {name!r} stands there twice; keep one")
        if isinstance(value, dict):
            value = [f"{inner}={part}" if isinstance(part, str) else [inner, part] for inner, part in value.items()]
        if value is not None:
            items = value if isinstance(value, list) else [value]
            if not all(isinstance(item, str) for item in items):
                raise ValueError(f"{path}: setting {key!r} must be one value, or one list of values")
            if any(len(item) > _LONGEST for item in items):
                raise ValueError(f"{path}: setting {key!r} has a value of more than {_LONGEST} characters")
            settings[name] = value
    return settings


def settings_of(step: Callable[..., Any]) -> list[str]:
    """Names of the settings of a step: the fields of its recipe, and of the groups that the recipe embeds."""
    recipe = typing.get_type_hints(step).get("recipe")
    return _fields(recipe) if isinstance(recipe, type) and dataclasses.is_dataclass(recipe) else []


def _fields(recipe: type[Any]) -> list[str]:
    hints = typing.get_type_hints(recipe)
    names: list[str] = []
    for field in dataclasses.fields(recipe):
        group = hints[field.name]
        names += _fields(group) if dataclasses.is_dataclass(group) and isinstance(group, type) else [field.name]
    return names
