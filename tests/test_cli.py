"""The command line: help with an example for every word, nearest names, one sentence and a status for every fault."""

import errno
import importlib
import json
import os
import subprocess
import sys
import warnings
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import pytest
from cyclopts import Parameter

from tomostain import cli, runs
from tomostain._recipes import find_recipe, read_recipe, settings_of
from tomostain.cli import COMMANDS, main


def step(word):
    module, _, name = COMMANDS[word].partition(":")
    return getattr(importlib.import_module(module), name)


@Parameter(name="*")
@dataclass(frozen=True)
class Group:
    spacing_um: tuple[float, float] | None = None
    number: float = 0.5


@Parameter(name="*")
@dataclass(frozen=True)
class Recipe:
    steps: int = 1
    names: tuple[str, ...] = ("x",)
    fast: bool = False
    label: str = "bone"
    group: Group = Group()


SEEN = []
FAULT = [None]


def probe(out: Path, *, recipe: Recipe = Recipe()) -> Path:
    """Look at what arrives.

    Example
    -------
    tomostain probe out
    """
    if FAULT[0] is not None:
        raise FAULT[0]
    runs.say("two backends were tried")
    runs.LOGGER.debug("the first one took 3 s")
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        warnings.warn("look at the edges", stacklevel=2)
    list(runs.progress(range(3), desc="probing"))
    SEEN.append(recipe)
    return out


@pytest.fixture
def probing(monkeypatch):
    """`tomostain probe`, a command that keeps its recipe in SEEN and raises what is in FAULT."""
    sys.modules.setdefault(__name__, importlib.import_module(__name__) if __name__ in sys.modules else None)
    module = type(sys)("probe_of_test_cli")
    module.probe = probe
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(cli, "COMMANDS", {"probe": f"{module.__name__}:probe"})
    monkeypatch.setattr(cli, "_docstring", lambda _: probe.__doc__)
    cli._app.cache_clear()
    SEEN.clear()
    FAULT[0] = None
    yield SEEN
    cli._app.cache_clear()


@pytest.mark.parametrize("word", COMMANDS)
def test_every_command_has_help_with_an_example_and_says_what_each_setting_is(word, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert main([word, "--help"]) == 0
    text = capsys.readouterr().out
    assert f"tomostain {word} " in text.partition("Example:")[2]
    lines = [line.strip("│ *\n") for line in text.splitlines()]
    for name in settings_of(step(word)):
        flag = "--" + name.replace("_", "-")
        shown = [line for line in lines if flag in line.split()]
        assert shown, f"{flag} is not in the help of {word}"
        words = shown[0].partition("[")[0].split("  ")[-1].split()
        assert len(words) >= 2, f"{flag} of {word} does not say what it is"


def test_a_setting_without_a_description_does_not_pass_as_described(probing, capsys, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "COMMANDS", {"probe": "probe_of_test_cli:probe"})
    with pytest.raises(AssertionError, match="--steps of probe does not say what it is"):
        test_every_command_has_help_with_an_example_and_says_what_each_setting_is("probe", capsys, monkeypatch)


def test_overview_names_every_command_in_order_and_imports_none():
    code = "import sys; from tomostain.cli import main; main([]); sys.exit(bool({'torch', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    places = [done.stdout.index(f"│ {word} ") for word in COMMANDS]
    assert places == sorted(places)


@pytest.mark.parametrize(
    ("words", "status", "sentence"),
    [
        (["trian"], 2, 'Unknown command "trian". Did you mean "train"?'),
        (["stain", "a", "b", "c", "--tile-pxs", "3", "3"], 2, "Did you mean --tile-px?"),
        (["stain", "a", "b"], 2, "--out"),
        (["stain", "a", "b", "c", "--every", "x"], 2, 'Invalid value for --every: unable to convert "x" into int'),
        (["stain", "nowhere", "b", "c"], 1, "nowhere"),
        (["pair", "a.csv", "b"], 1, "there is no table a.csv"),
        (["--recipe", "laptop"], 1, "--recipe belongs to a command"),
        (["train", "a", "b", "--recipe", "ful"], 1, "there is no recipe ful; did you mean 'full'?"),
        (["train", "a", "b", "--recipe", "here/laptop.yaml"], 1, "there is no recipe here/laptop.yaml"),
    ],
)
def test_faults_are_one_sentence_and_a_status(words, status, sentence, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(words) == status
    said = capsys.readouterr()
    assert sentence in said.err
    assert len(said.err.strip().splitlines()) == 1
    assert said.out == ""
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("fault", "status", "sentence"),
    [
        (KeyError("processors"), 70, "this is a bug in tomostain (KeyError: 'processors', test_cli.py line"),
        (TypeError("a\nb"), 70, "this is a bug in tomostain (TypeError: a b,"),
        (AssertionError(), 70, "this is a bug in tomostain (AssertionError: AssertionError,"),
        (ValueError("two\n lines"), 1, "two lines"),
        (MemoryError(), 1, "not enough memory (MemoryError)"),
        (RuntimeError("can't start new thread"), 1, "not enough memory (can't start new thread)"),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
            1,
            "not enough memory",
        ),
        (OSError(errno.ENOSPC, "No space left on device"), 1, "the disk is full; free some space"),
        (
            PermissionError(errno.EACCES, "Permission denied", "/data/x"),
            1,
            "tomostain probe: /data/x: Permission denied",
        ),
        (BlockingIOError("another run is writing out"), 1, "another run is writing out"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_whatever_a_step_raises_is_one_sentence(probing, fault, status, sentence, capsys):
    FAULT[0] = fault
    assert main(["probe", "out"]) == status
    said = capsys.readouterr()
    assert sentence in said.err
    assert len(said.err.strip().splitlines()) == 1
    if status == 70:
        assert "please report it with what TOMOSTAIN_TRACEBACK=1 shows" in said.err


def test_a_traceback_is_shown_on_request(probing, monkeypatch):
    monkeypatch.setenv("TOMOSTAIN_TRACEBACK", "1")
    FAULT[0] = KeyError("processors")
    with pytest.raises(KeyError, match="processors"):
        main(["probe", "out"])


def test_an_import_that_fails_says_why(probing, monkeypatch, capsys):
    monkeypatch.setattr(cli, "COMMANDS", {"probe": "tomostain_that_is_not_there:probe"})
    cli._app.cache_clear()
    assert main(["probe", "out"]) == 1
    assert "No module named 'tomostain_that_is_not_there'" in capsys.readouterr().err


def test_recipe_gives_settings_and_what_is_typed_wins(probing, tmp_path, capsys):
    text = "steps: 5\nnames: [--fast, 007, NO, 2026-01-02, '']\nfast: yes\nlabel: null\nspacing_um: [5, 1e-1]\n"
    text += "number: .5\n"
    (tmp_path / "r.yaml").write_text(text)
    assert main(["probe", "o", "--recipe", str(tmp_path / "r.yaml"), "--steps", "7", "--no-fast"]) == 0
    assert capsys.readouterr().out == "o\n"
    names = ("--fast", "007", "NO", "2026-01-02", "")
    assert probing == [Recipe(7, names, False, "bone", Group((5.0, 0.1), 0.5))]
    assert main(["probe", f"--recipe={tmp_path / 'r.yaml'}", "o"]) == 0
    assert probing[1] == Recipe(5, names, True, "bone", Group((5.0, 0.1), 0.5))
    assert main(["probe", "o"]) == 0
    assert probing[2] == Recipe()


def test_a_mapping_in_a_recipe_is_a_list_of_key_and_value(probing, tmp_path):
    (tmp_path / "r.yaml").write_text("names: {paired: 50, structure: 0.5}\n")
    main(["probe", "o", "--recipe", str(tmp_path / "r.yaml")])
    assert probing == [Recipe(names=("paired=50", "structure=0.5"))]


def test_an_empty_list_in_a_recipe_is_an_empty_list(probing, tmp_path):
    (tmp_path / "r.yaml").write_text("names: []\n")
    main(["probe", "o", "--recipe", str(tmp_path / "r.yaml")])
    assert probing == [Recipe(names=())]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (b"stepz: 5", "unknown setting 'stepz'; did you mean 'steps'?"),
        (b"steps: 5\nsteps: 6", "setting 'steps' stands there 2 times; keep one"),
        (b"spacing_um: [1, 2]\nspacing-um: [3, 4]", "setting 'spacing_um' stands there twice; keep one"),
        (b"steps: [[1, 2]]", "setting 'steps' must be one value, or one list of values"),
        (b"steps: {a: [1]}", "setting 'steps' must be one value, or one list of values"),
        (b"names: [a, null]", "setting 'names' must be one value, or one list of values"),
        (b"steps: !!python/object/apply:os.getcwd []", "cannot be read as a recipe"),
        (b"steps: 2026-01-02", 'Invalid value for [steps]'),
        (b"steps: true", 'Invalid value for [steps]'),
        (b"steps: 1.5", "Invalid value for --steps: 1.5 is not a whole number"),
        (b"fast: perhaps", 'Invalid value for [fast]'),
        (b"spacing_um: 5 5", "r.yaml: Incorrect number of arguments: expected 2 but got 1."),
        (b"- steps", "is not a recipe: it must hold one 'setting: value' a line"),
        (b"", "is not a recipe"),
        (b"steps:\t5\n\t- 6", "cannot be read as a recipe"),
        (b"\xff\x00\xfe", "cannot be read as a recipe"),
        (b"<<: {steps: 5}", "unknown setting '<<'"),
        (b"[" * 100_000, "cannot be read as a recipe"),
        (b"#" * 2_000_000, "is too large to be a recipe"),
        (b"out: elsewhere", "unknown setting 'out'"),
    ],
)  # fmt: skip
def test_faults_of_recipes_are_one_sentence(probing, tmp_path, capsys, text, sentence):
    (tmp_path / "r.yaml").write_bytes(text)
    assert main(["probe", "o", "--recipe", str(tmp_path / "r.yaml")]) in (1, 2)
    said = capsys.readouterr().err
    assert sentence in said
    assert len(said.strip().splitlines()) == 1
    assert not probing


def test_a_recipe_in_another_encoding_with_a_mark_is_read(probing, tmp_path):
    for encoding in ("utf-8-sig", "utf-16"):
        (tmp_path / "r.yaml").write_text("label: os, Fe, µ\n", encoding=encoding)
        assert main(["probe", "o", "--recipe", str(tmp_path / "r.yaml")]) == 0
    assert [recipe.label for recipe in probing] == ["os, Fe, µ"] * 2


def test_recipes_that_ship_are_found_by_name_and_known_to_their_step():
    files = [Path(str(file)) for file in (resources.files("tomostain") / "recipes").iterdir()]
    assert {file.stem for file in files} >= {"train_reference_cyclegan", "train_full", "demo_small"}
    for file in files:
        word, _, name = file.stem.partition("_")
        assert find_recipe(name, word) == file
        assert read_recipe(file, step(word))


def test_a_file_wins_over_a_recipe_that_ships(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("full").write_text("steps: 3")
    assert find_recipe("full", "train") == Path("full")


def test_a_reader_that_closes_the_pipe_ends_the_command_quietly():
    done = subprocess.run(
        f"{sys.executable} -m tomostain --help | true; exit ${{PIPESTATUS[0]}}",
        shell=True, executable="/bin/bash", capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode in (0, 1, 141)
    assert done.stderr == ""


def test_a_file_name_that_no_encoding_knows_is_printed_as_its_bytes(tmp_path):
    code = (
        "import os; from pathlib import Path; from tomostain import cli\n"
        "cli._print_result(Path(os.fsdecode(b'a\\xff')), as_json=False)"
    )
    for settings in ({"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}, {"LC_ALL": "C.UTF-8"}):
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, check=True, env={**os.environ, **settings}
        )
        assert done.stdout == b"a\xff\n"


def test_import_is_light():
    code = "import sys, tomostain; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_whatever_the_locale_files_are_written_and_read_as_utf_8(tmp_path):
    code = (
        "import sys; from pathlib import Path; from tomostain import runs\n"
        "out = Path(sys.argv[1]) / 'page'\n"
        "with runs.output(out, 'test', recipe={'stain': '\\u00b5'}):\n"
        "    runs.write_text_atomically(out, 'h\\u00e9')\n"
        "assert runs.read_record(out)['recipe'] == {'stain': '\\u00b5'}\n"
        "assert out.read_bytes() == 'h\\u00e9'.encode()\n"
    )
    settings = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, env={**os.environ, **settings})


def test_a_text_with_a_name_of_no_encoding_is_written(tmp_path):
    runs.write_text_atomically(tmp_path / "page.html", "<p>a\udcff</p>")
    assert (tmp_path / "page.html").read_text() == "<p>a\\udcff</p>"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the superuser reads everything")
def test_a_folder_that_may_not_be_read_is_named(tmp_path, capsys):
    (tmp_path / "scan").mkdir(mode=0)
    assert main(["inspect", str(tmp_path / "scan")]) == 1
    assert "scan" in capsys.readouterr().err


def test_too_little_memory_for_the_libraries_is_one_sentence(tmp_path):
    words = f"ulimit -v 60000; exec {sys.executable} -m tomostain stain a b c"
    done = subprocess.run(["/bin/bash", "-c", words], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("tomostain stain: not enough memory (")


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ([], {"two backends", "look at", "probing"}),
        (["--quiet"], {"look at"}),
        (["--verbose"], {"two backends", "look at", "probing", "took 3 s", "ended after"}),
    ],
)
def test_quiet_shows_warnings_only_and_verbose_shows_more(probing, tmp_path, capsys, words, shown):
    assert main(["probe", "out", *words, "--log", str(tmp_path / "log.txt")]) == 0
    said = capsys.readouterr()
    everything = {"two backends", "look at", "probing", "took 3 s", "ended after"}
    assert {text for text in everything if text in said.err} == shown
    assert said.out == "out\n"
    log = (tmp_path / "log.txt").read_text()
    assert {text for text in everything if text in log} == everything - {"probing"}
    assert all(line[:2] == "20" for line in log.splitlines())


def test_a_log_is_added_to_and_holds_the_traceback_of_a_fault(probing, tmp_path, capsys):
    (tmp_path / "log.txt").write_text("first run\n")
    FAULT[0] = KeyError("processors")
    assert main(["probe", "out", "--log", str(tmp_path / "log.txt")]) == 70
    log = (tmp_path / "log.txt").read_text()
    assert log.startswith("first run\n")
    assert "KeyError: 'processors'" in log.splitlines()[-1]
    assert "Traceback" not in capsys.readouterr().err
    assert main(["probe", "out", "--log", str(tmp_path / "nowhere" / "log.txt")]) == 1
    assert "No such file or directory" in capsys.readouterr().err


def test_json_prints_what_the_record_says(probing, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with runs.output(Path("out"), "probe") as made:
        Path("out").write_text("x")
        made.results["pairs"] = 3
    assert main(["probe", "out", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"out": "out", "step": "probe", "results": {"pairs": 3}}
    assert main(["probe", "--json", "elsewhere"]) == 0
    assert json.loads(capsys.readouterr().out) == {"out": "elsewhere", "step": None, "results": None}


def test_inspect_prints_json_too(tmp_path, capsys):
    assert main(["inspect", str(tmp_path), "--json"]) == 1
    assert main(["phantom", str(tmp_path / "c"), "--specimens", "1", "--slides", "0", "--size", "16", "16", "16"]) == 0
    capsys.readouterr()
    assert main(["inspect", str(tmp_path / "c" / "S00" / "ct.ome.zarr"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["shape"] == [16, 16, 16]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete_commands_and_their_flags(shell):
    script = cli._app().generate_completion(shell=shell)
    assert all(word in script for word in ("stain", "evaluate", "memory-gib", "around-within"))


@pytest.mark.parametrize("kind", ["pipe", "circle", "folder"])
def test_what_is_no_file_is_no_recipe(tmp_path, kind):
    """Opening a named pipe would wait for ever."""
    path = tmp_path / "train.yaml"
    {"pipe": os.mkfifo, "circle": lambda path: path.symlink_to(path.name), "folder": os.mkdir}[kind](path)
    with pytest.raises(ValueError, match=r"train\.yaml is not a recipe: there is no such file"):
        read_recipe(path, step("convert"))


def test_a_recipe_with_a_number_of_thousands_of_digits_is_refused(tmp_path, capsys):
    (tmp_path / "long.yaml").write_text("steps: " + "9" * 5001)
    assert main(["train", "pairs", "out", "--recipe", str(tmp_path / "long.yaml")]) == 1
    assert "long.yaml: setting 'steps' has a value of more than 4096 characters" in capsys.readouterr().err
