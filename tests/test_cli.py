"""The command line: help with an example for every word, nearest names, one sentence and a status for every fault."""

import dataclasses
import importlib
import subprocess
import sys

import pytest

from tomostain.cli import COMMANDS, main, read_recipe, setting_names, settings_of


def step(word):
    module, _, name = COMMANDS[word].partition(":")
    return getattr(importlib.import_module(module), name)


@pytest.mark.parametrize("word", COMMANDS)
def test_every_command_has_help_with_an_example(word, capsys):
    assert main([word, "--help"]) == 0
    text = capsys.readouterr().out
    assert "Example:" in text
    assert f"tomostain {word} " in text.partition("Example:")[2]


@pytest.mark.parametrize("word", COMMANDS)
def test_every_setting_says_what_it_is(word, capsys):
    settings = settings_of(step(word))
    main([word, "--help"])
    text = capsys.readouterr().out
    for name in setting_names(settings) if settings else ():
        flag = "--" + name.replace("_", "-")
        (line, *_) = [line for line in text.splitlines() if flag in line.replace(",", " ").split()] or [""]
        assert line, f"{flag} is not in the help of {word}"


def test_overview_names_every_command(capsys):
    assert main([]) == 0
    text = capsys.readouterr().out
    assert all(f"  {word} " in text for word in COMMANDS)


@pytest.mark.parametrize(
    ("words", "status", "sentence"),
    [
        (["trian"], 2, "there is no command 'trian'; did you mean 'train'?"),
        (["stain", "a", "b", "c", "--tile-pxs", "3", "3"], 2, "--tile-px"),
        (["stain", "a", "b"], 2, "--out"),
        (["stain", "nowhere", "b", "c"], 1, "nowhere"),
        (["pair", "a.csv", "b"], 1, "there is no table a.csv"),
    ],
)
def test_faults_are_one_sentence_and_a_status(words, status, sentence, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(words) == status
    told = capsys.readouterr()
    assert sentence in told.err
    assert len(told.err.strip().splitlines()) == 1
    assert told.out == ""
    assert not any(tmp_path.iterdir())


def test_unknown_recipe_key_names_the_nearest(tmp_path, capsys):
    (tmp_path / "r.yaml").write_text("tile_pxl: [64, 64]\n")
    assert main(["stain", "a", "b", "c", "--recipe", str(tmp_path / "r.yaml")]) == 1
    assert "unknown setting 'tile_pxl'; did you mean 'tile_px'?" in capsys.readouterr().err


def test_recipe_file_gives_settings_and_what_is_typed_wins(tmp_path, monkeypatch):
    from tomostain import cli

    seen = {}

    @dataclasses.dataclass(frozen=True)
    class Recipe:
        steps: int = 1
        names: tuple[str, ...] = ()
        fast: bool = False

    def probe(out: str, *, recipe: Recipe = Recipe()) -> None:
        seen.update(dataclasses.asdict(recipe), out=out)

    probe.__annotations__ = {"out": str, "recipe": Recipe, "return": None}
    monkeypatch.setattr(sys.modules[__name__], "probe", probe, raising=False)
    monkeypatch.setattr(cli, "COMMANDS", {"probe": f"{__name__}:probe"})
    (tmp_path / "r.yaml").write_text("steps: 5\nnames: [a, b]\nfast: true\n")
    assert main(["probe", "o", "--recipe", str(tmp_path / "r.yaml"), "--steps", "7"]) == 0
    assert seen == {"steps": 7, "names": ("a", "b"), "fast": True, "out": "o"}


def test_shipped_recipes_are_known_to_their_step(pytestconfig):
    files = sorted((pytestconfig.rootpath / "recipes").glob("*.yaml"))
    assert files
    for file in files:
        assert read_recipe(file, step(file.stem.partition("_")[0]))


def test_import_is_light():
    code = "import sys, tomostain; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_mapping_and_a_group_of_settings_in_a_recipe_file_are_typed_settings(tmp_path):
    (tmp_path / "r.yaml").write_text("specimen: S1\nspacing_um: [5, 5, 5]\noffset: 16\n")
    assert read_recipe(tmp_path / "r.yaml", step("pair")) == {"specimen": "S1", "spacing_um": [5, 5, 5], "offset": 16}
    (tmp_path / "r.yaml").write_text("weights: {paired: 50, structure: 0.5}\n")
    assert read_recipe(tmp_path / "r.yaml", step("train")) == {"weights": ["paired=50", "structure=0.5"]}
    (tmp_path / "r.yaml").write_text("weights: {paired: [1]}\n")
    with pytest.raises(ValueError, match="lists within lists"):
        read_recipe(tmp_path / "r.yaml", step("train"))
