"""What is compared: a method by its name, with changes; ``METHOD:-ssim:width=16``, or named in a YAML file."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tomostain._imports import nearest, pick
from tomostain.learning.losses import LOSSES
from tomostain.learning.methods import METHODS
from tomostain.learning.recipe import TrainRecipe

_NOT_SET = frozenset({"fold", "folds", "hold_out", "seed", "hours", "resume", "finish_now", "variation"})
"""Settings of a training that the experiment decides, or that are groups."""
SETTINGS = tuple(field.name for field in dataclasses.fields(TrainRecipe) if field.name not in _NOT_SET)


@dataclass(frozen=True)
class Variant:
    """One entry of the comparison."""

    name: str
    """As it was written; the tables show it."""
    recipe: TrainRecipe

    @property
    def folder(self) -> str:
        """The name of its folder."""
        return re.sub(r"[^A-Za-z0-9._=+-]+", "_", self.name).lstrip(".")


def variants_of(words: Sequence[str], file: Path | None, base: TrainRecipe) -> list[Variant]:
    """The entries that ``words`` name, each a change of ``base``; all entries of the file where there are no words.

    A word is a name in the file, or METHOD with changes behind colons: ``-loss`` leaves a loss out, ``loss=number``
    weighs it, ``setting=value`` changes a setting of `tomostain train` (``from`` is the stainer to start from).

    Raises
    ------
    ValueError
        A name, a loss, a setting or a value is wrong, or two entries have one name.
    """
    named = _from_file(file, base) if file else {}
    found = [named[word] if word in named else _from_word(word, base, named) for word in words or named]
    folders = [variant.folder for variant in found]
    for variant in found:
        variant.recipe.chosen_method()
        if folders.count(variant.folder) > 1 or not variant.folder:
            raise ValueError(f"two entries are named {variant.name!r}; give each another name")
    if len(found) < 1:
        raise ValueError("there is nothing to compare; pass --methods, such as --methods pix2pix supervised")
    return found


def _from_word(word: str, base: TrainRecipe, named: Mapping[str, Variant]) -> Variant:
    method, *changes = word.split(":")
    if method not in METHODS and method not in named:
        pick(method, {**METHODS, **named})
    recipe = named[method].recipe if method in named else dataclasses.replace(base, method=method)
    weights, settings = list(recipe.weights), {}
    for change in changes:
        name, equals, value = change.partition("=")
        if change.startswith("-") and not equals:
            known = [*recipe.chosen_method().losses()]
            if name[1:] not in known:
                raise ValueError(
                    f"{word!r}: {method} has no loss {name[1:]!r} to leave out; {nearest(name[1:], known)}"
                )
            weights.append(f"{name[1:]}=0")
        elif name in LOSSES and equals:
            weights.append(change)
        else:
            settings[name] = value
    return Variant(word, _changed(recipe, {**settings, "weights": tuple(weights)}, word))


def _from_file(file: Path, base: TrainRecipe) -> dict[str, Variant]:
    try:
        entries = yaml.safe_load(Path(file).read_bytes())
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no file {file} of variants") from None
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise ValueError(f"{file} cannot be read as YAML: {' '.join(str(error).split())}") from None
    if not isinstance(entries, dict) or not all(isinstance(one, dict) for one in entries.values()):
        raise ValueError(f"{file} must hold one 'name: {{setting: value}}' for each entry of the comparison")
    return {
        str(name): Variant(str(name), _changed(base, changes, f"{file}: {name}")) for name, changes in entries.items()
    }


def _changed(recipe: TrainRecipe, changes: Mapping[str, Any], where: str) -> TrainRecipe:
    """The recipe with settings changed; values are read as YAML reads them."""
    kinds = {field.name: str(field.type) for field in dataclasses.fields(TrainRecipe)}
    values = {}
    for key, value in changes.items():
        name = {"from": "from_stainer"}.get(str(key), str(key).replace("-", "_"))
        if name not in SETTINGS:
            raise ValueError(
                f"{where!r}: {key!r} is neither a setting nor a loss; {nearest(name, [*SETTINGS, *LOSSES])}"
            )
        values[name] = _value(value, kinds[name])
    try:
        return dataclasses.replace(recipe, **values)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where!r}: {error}") from None


def _value(value: Any, kind: str) -> Any:
    if isinstance(value, str) and "str" not in kind.replace("tuple[str", ""):
        value = tuple(value.split(",")) if "tuple[str" in kind else yaml.safe_load(value)
    if isinstance(value, str) and "float" in kind:  # YAML 1.1 takes 2e-4 for text
        value = float(value)
    if isinstance(value, dict):
        return tuple(f"{name}={part}" for name, part in value.items())
    return tuple(value) if isinstance(value, list) else value
