"""The command line: one table of words; a step's signature and recipe are its arguments, flags and YAML keys.

Only the module of the word that was said is imported.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import importlib.util
import inspect
import os
import re
import sys
import typing
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

import yaml
from cyclopts import App, CycloptsError, Parameter

from tomostain import __version__
from tomostain._imports import nearest

COMMANDS = MappingProxyType(
    {
        "phantom": "tomostain.steps.phantom:phantom",
        "inspect": "tomostain.steps.inspect:inspect",
        "convert": "tomostain.steps.convert:convert",
        "register": "tomostain.steps.register:register",
        "pair": "tomostain.steps.pair:pair",
        "train": "tomostain.steps.train:train",
        "evaluate": "tomostain.steps.evaluate:evaluate",
        "stain": "tomostain.steps.stain:stain",
        "report": "tomostain.steps.report:report",
        "demo": "tomostain.steps.demo:demo",
        "lpips-weights": "tomostain.steps.lpips_weights:lpips_weights",
    }
)
USAGE = """tomostain - virtual staining for 3D X-ray histology

Usage: tomostain COMMAND ... [--recipe FILE.yaml]      tomostain COMMAND --help      tomostain --version

{commands}

The story: register -> pair -> train -> evaluate -> stain -> report; `tomostain demo OUT` tells it whole, on a phantom.
Any flag can stand in a YAML file given as --recipe; what is typed wins over what is in the file.
"""
FAULT, USAGE_FAULT, INTERRUPTED = 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status; faults are told in one sentence on stderr."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    os.environ.setdefault(
        "THP_MEM_ALLOC_ENABLE", "1"
    )  # read by PyTorch: large tensors in huge pages, where Linux has them
    if not words or words[0] in ("-h", "--help", "help"):
        print(USAGE.format(commands="\n".join(f"  {word:14} {_summary(COMMANDS[word])}" for word in COMMANDS)))
        return 0
    if words[0] == "--version":
        print(__version__)
        return 0
    word, rest = words[0], words[1:]
    if word not in COMMANDS:
        return _tell("tomostain", f"there is no command {word!r}; {nearest(word, COMMANDS)}", USAGE_FAULT)
    speaker = f"tomostain {word}"
    warnings.showwarning = _show_warning
    try:
        module, _, name = COMMANDS[word].partition(":")
        step = getattr(importlib.import_module(module), name)
        app = _app(speaker, step)
        result = app(_with_recipe(rest, step), exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        return _tell(speaker, f"{_one_line(error)} (tomostain {word} --help)", USAGE_FAULT)
    except (ValueError, OSError, ModuleNotFoundError, MemoryError) as error:
        if os.environ.get("TOMOSTAIN_TRACEBACK"):
            raise
        return _tell(speaker, _one_line(error), FAULT)
    except KeyboardInterrupt:
        return _tell(speaker, "interrupted; what was finished is kept", INTERRUPTED)
    if isinstance(result, Path):
        print(result)
    return 0


def settings_of(step: Callable[..., Any]) -> type[Any] | None:
    """The recipe dataclass of a step, None where it has none."""
    recipe = typing.get_type_hints(step).get("recipe")
    return recipe if dataclasses.is_dataclass(recipe) and isinstance(recipe, type) else None


def read_recipe(path: Path, step: Callable[..., Any]) -> dict[str, Any]:
    """The settings in a YAML file, checked against the step's recipe.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        No mapping, lists within lists, or a key that the recipe does not have; the nearest known one is named.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no recipe {path}")
    try:
        text = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise ValueError(f"{path} cannot be read as a recipe: {_one_line(error)}") from None
    settings = settings_of(step)
    known = setting_names(settings) if settings else []
    if not isinstance(text, dict):
        raise ValueError(f"{path} is not a recipe: it must hold one 'setting: value' a line")
    for key in text:
        if str(key).replace("-", "_") not in known:
            raise ValueError(f"{path}: unknown setting {key!r}; {nearest(str(key), known)}")
    text = {key: _pairs_of(value) if isinstance(value, dict) else value for key, value in text.items()}
    for key, value in text.items():
        items = value if isinstance(value, list) else [value]
        if any(isinstance(item, list | dict | set) for item in items):
            raise ValueError(f"{path}: setting {key!r} holds lists within lists; give it one value, or one list")
    return {str(key).replace("-", "_"): value for key, value in text.items()}


def setting_names(settings: type[Any]) -> list[str]:
    """The settings of a recipe; a group of settings within it stands for its own."""
    names: list[str] = []
    for field in dataclasses.fields(settings):
        grouped = dataclasses.is_dataclass(field.default)
        names += setting_names(type(field.default)) if grouped else [field.name]
    return names


def _pairs_of(values: dict[Any, Any]) -> list[Any]:
    """A mapping as flags take it: ``{width: 8}`` -> ``["width=8"]``; what is not plain stays to be refused."""
    return [
        f"{key}={value}" if isinstance(value, str | int | float | bool) else [key, value]
        for key, value in values.items()
    ]


def _app(speaker: str, step: Callable[..., Any]) -> App:
    """A parser whose arguments are the step's parameters and whose flags are the fields of its recipe."""
    hints = typing.get_type_hints(step, include_extras=True)
    signature = inspect.signature(step)
    parameters = [
        parameter.replace(
            annotation=Annotated[hints[name], Parameter(name="*")] if name == "recipe" else hints.get(name, Any)
        )
        for name, parameter in signature.parameters.items()
    ]

    def call(*args: Any, **kwargs: Any) -> Any:
        return step(*args, **kwargs)

    call.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    text, examples = _split_examples(inspect.getdoc(step) or "")
    call.__doc__ = text
    app = App(
        name=speaker,
        version=None,
        version_flags=(),
        help_flags=("--help", "-h"),
        help_format="plaintext",
        help_epilogue="Example:\n" + "\n".join(f"  {line}" for line in examples) if examples else None,
        default_parameter=Parameter(negative_iterable=(), negative_none=(), consume_multiple=True),
    )
    app.default(call)
    return app


def _with_recipe(words: list[str], step: Callable[..., Any]) -> list[str]:
    """Put the settings of ``--recipe FILE`` among the words, unless they were typed."""
    file, rest, waiting = None, [], iter(words)
    for word in waiting:
        if word == "--recipe" or word.startswith("--recipe="):
            file = word.partition("=")[2] or next(waiting, None)
            if file is None:
                raise ValueError("--recipe needs a YAML file")
        else:
            rest.append(word)
    if file is None:
        return rest
    typed = {word.partition("=")[0] for word in rest if word.startswith("--")}
    for key, value in read_recipe(Path(file), step).items():
        flag = "--" + key.replace("_", "-")
        if flag in typed or "--no-" + flag[2:] in typed or value is None:
            continue
        if isinstance(value, bool):
            rest.append(flag if value else "--no-" + flag[2:])
        elif isinstance(value, list):
            rest += [flag, *map(str, value)] if value else []
        else:
            rest.append(f"{flag}={value}")
    return rest


def _split_examples(text: str) -> tuple[str, list[str]]:
    """Take the example lines (those that begin with ``tomostain``) and their heading out of a docstring."""
    kept, examples = [], []
    for line in text.splitlines():
        bare = re.sub(r"^(examples?:?\s*)?[`$>\s]*(?=tomostain )", "", line.strip(), flags=re.IGNORECASE)
        if re.match(r"tomostain [a-z]", bare):
            examples.append(bare.rstrip("`"))
        else:
            kept.append(line)
    text = "\n".join(kept).strip()
    return re.sub(r"\n+Examples?:?\s*(\n-+\s*)?$", "", text, flags=re.IGNORECASE), examples


def _summary(target: str) -> str:
    """The first docstring line of a step, read from its source without importing it."""
    module, _, name = target.partition(":")
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        return ""
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    found = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name]
    return (ast.get_docstring(found[0]) or "").partition("\n")[0] if found else ""


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text or type(error).__name__


def _tell(speaker: str, sentence: str, status: int) -> int:
    print(f"{speaker}: {sentence}", file=sys.stderr)
    return status


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    if issubclass(category, UserWarning):
        print(f"warning: {message}", file=sys.stderr)
