"""Every number that a user may set has bounds, and they hold on the command line, in a recipe and in Python."""

import importlib
import math
import typing
from dataclasses import dataclass, fields, is_dataclass
from typing import Annotated, Literal

import pytest

from tomostain._settings import Within, check_numbers, number_fields
from tomostain.cli import COMMANDS, main


def recipes():
    for target in COMMANDS.values():
        module, _, name = target.partition(":")
        recipe = typing.get_type_hints(getattr(importlib.import_module(module), name))["recipe"]
        yield recipe
        yield from (type(field.default) for field in fields(recipe) if is_dataclass(field.default))


@pytest.mark.parametrize("recipe", dict.fromkeys(recipes()), ids=lambda recipe: recipe.__name__)
def test_every_number_of_every_recipe_is_refused_outside_its_bounds(recipe):
    usual = recipe()
    for name, (bounds, whole) in number_fields(recipe).items():
        width = math.ulp(max(abs(bounds.low), abs(bounds.high)))
        faulty = [math.nan, math.inf, -math.inf, bounds.low - (1 if whole else width), bounds.high * 2 + 1, "5", True]
        faulty += [bounds.low] if bounds.above else []
        faulty += [bounds.low + 0.5] if whole else []
        value = getattr(usual, name)
        for bad in faulty:
            with pytest.raises(ValueError, match=f"^{name} must be "):
                recipe(**{name: (bad, *value[1:]) if isinstance(value, tuple) and value else bad})


@dataclass(frozen=True)
class Settings:
    share: Annotated[float, Within(0, 1)] = 0.5
    size: Annotated[tuple[int, int] | None, Within(1, 100, above=True)] = None
    kind: Literal[1, 2] = 1
    fast: bool = False
    names: tuple[str, ...] = ()

    def __post_init__(self):
        check_numbers(self)


def test_bounds_are_said_with_the_value():
    assert number_fields(Settings) == {"share": (Within(0, 1), False), "size": (Within(1, 100, above=True), True)}
    assert Settings(share=0) == Settings(share=0.0)
    assert Settings(share=1, size=(2, 100))
    for given, why in [
        ({"share": math.nan}, "share must be at least 0 and at most 1, got nan"),
        ({"share": 1.0000001}, "share must be at least 0 and at most 1, got 1.0000001"),
        ({"size": (2, 1)}, "size must be above 1 and at most 100, got 1"),
        ({"size": (2.5, 3)}, "size must be a whole number, got 2.5"),
        ({"share": "0.5"}, "share must be a number, got '0.5'"),
        ({"share": True}, "share must be a number, got True"),
    ]:
        with pytest.raises(ValueError, match=f"^{why}$".replace("(", r"\(")):
            Settings(**given)


def test_a_number_without_bounds_cannot_be_declared():
    @dataclass(frozen=True)
    class Careless:
        steps: int | None = 3

        def __post_init__(self):
            check_numbers(self)

    with pytest.raises(TypeError, match=r"Careless\.steps holds numbers and declares no bounds"):
        Careless()


def test_a_number_out_of_bounds_is_one_sentence_on_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r.yaml").write_text("memory_gib: nan\n")
    bounds = "memory_gib must be above 0 and at most 1048576, got nan"
    for words, status, why in [
        (["--memory-gib", "nan"], 1, bounds),
        (["--memory-gib", ".nan"], 2, 'Invalid value for --memory-gib: unable to convert ".nan" into float'),
        (["--recipe", "r.yaml"], 1, bounds),
    ]:
        assert main(["stain", "stainer", "ct.tif", "out", *words]) == status
        said = capsys.readouterr().err
        assert why in said
        assert len(said.strip().splitlines()) == 1
