"""The command line: one table of commands; a step's signature and recipe are its arguments, flags and YAML keys.

Only the module of the command that was typed is imported.
"""

from __future__ import annotations

import ast
import errno
import functools
import importlib
import importlib.util
import json
import logging
import os
import platform
import re
import resource
import shlex
import sys
import time
import traceback
import typing
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, TextIO

from cyclopts import App, ArgumentCollection, CycloptsError, Parameter
from cyclopts.config import Dict

from tomostain import __version__, runs
from tomostain._recipes import find_recipe, read_recipe, settings_of

COMMANDS = MappingProxyType(
    {
        "phantom": "tomostain.steps.phantom:phantom",
        "inspect": "tomostain.steps.inspect:inspect",
        "convert": "tomostain.steps.convert:convert",
        "table": "tomostain.steps.table:table",
        "register": "tomostain.steps.register:register",
        "landmarks": "tomostain.steps.landmarks:landmarks",
        "pair": "tomostain.steps.pair:pair",
        "train": "tomostain.steps.train:train",
        "import": "tomostain.steps.import_checkpoint:import_checkpoint",
        "evaluate": "tomostain.steps.evaluate:evaluate",
        "experiment": "tomostain.steps.experiment:experiment",
        "stain": "tomostain.steps.stain:stain",
        "report": "tomostain.steps.report:report",
        "view": "tomostain.steps.view:view",
        "demo": "tomostain.steps.demo:demo",
        "lpips-weights": "tomostain.steps.lpips_weights:lpips_weights",
    }
)
LOGGER = runs.LOGGER
FAULT, USAGE_FAULT, OUR_FAULT, INTERRUPTED, BROKEN_PIPE = 1, 2, 70, 130, 141
TRACEBACK = "TOMOSTAIN_TRACEBACK"
_NO_MEMORY = re.compile(
    r"out of memory|alloc|can't start new thread|not enough memory|failed to map|temporarily unavailable", re.IGNORECASE
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status; every fault is one sentence on stderr."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # PyTorch: large tensors in huge pages, where Linux has them
    warnings.showwarning = _show_warning
    _report_to(sys.stderr)
    command = f"tomostain {words[0]}" if words and words[0] in COMMANDS else "tomostain"
    try:
        _app().meta(words, exit_on_error=False, print_error=False)
        sys.stdout.flush()
        return 0
    except CycloptsError as error:
        hint = f" ({command} --help)" if command != "tomostain" else ""
        return _say(command, f"{_usage(error)}{hint}", USAGE_FAULT)
    except KeyboardInterrupt:
        return _say(command, "interrupted; finished files are kept", INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains when it flushes at the end
        return BROKEN_PIPE
    except Exception as error:
        if os.environ.get(TRACEBACK):
            raise
        return _say(command, *_sentence(error))
    finally:
        _report_to(None)


@functools.cache
def _app() -> App:
    """The parser of all commands."""
    app = App(
        name="tomostain",
        help="Virtual staining for 3D X-ray histology.",
        version=__version__,
        help_flags=("--help", "-h"),
        help_format="plaintext",
        help_epilogue="The order is: table, register, pair, train, evaluate, stain, report (`tomostain demo OUT`).",
        default_parameter=Parameter(negative_iterable=(), negative_none=(), consume_multiple=True),
        result_action="return_value",
        suppress_keyboard_interrupt=False,
    )
    for place, (word, target) in enumerate(COMMANDS.items()):
        text = _docstring(target)
        example = "Example:\n" + "\n".join(f"  {line}" for line in _examples(text))
        app.command(
            target,
            name=word,
            help=text.partition("\n")[0],
            help_epilogue=example,
            sort_key=place,
            suppress_keyboard_interrupt=False,
        )
    app.register_install_completion_command(help="Complete commands and flags in this shell with the Tab key.")

    def start(
        *words: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
        recipe: str | None = None,
        as_json: Annotated[bool, Parameter(name="--json", negative=())] = False,
        quiet: Annotated[bool, Parameter(negative=())] = False,
        verbose: Annotated[bool, Parameter(negative=())] = False,
        log: Path | None = None,
    ) -> None:
        """Run one command.

        Parameters
        ----------
        recipe
            YAML file with settings, or the name of a recipe that ships; options that are typed replace its settings.
        as_json
            Print the record of the result as one JSON object, instead of its path.
        quiet
            Show warnings and errors only.
        verbose
            Show more, such as how long the command took.
        log
            File to which all messages are appended, with times.
        """
        _report_to(sys.stderr, quiet=quiet, verbose=verbose, file=log)
        known = words[:1] if words and words[0] in COMMANDS else ()
        app.config = [_check_whole_numbers]
        if recipe is not None:
            if not known:
                raise ValueError("--recipe belongs to a command: tomostain COMMAND ... --recipe FILE.yaml")
            file = find_recipe(recipe, words[0])
            settings = read_recipe(file, _step(words[0]))
            app.config = [Dict(settings, source=str(file), use_commands_as_keys=False), _check_whole_numbers]
        own_json = "--json" in words or (as_json and bool(known) and "json" in settings_of(_step(words[0])))
        words = (*words, "--json") if own_json and "--json" not in words else words
        begin = time.monotonic()
        LOGGER.debug("tomostain %s, Python %s: %s", __version__, platform.python_version(), shlex.join(words))
        result = app(words, exit_on_error=False, print_error=False)
        LOGGER.debug("ended after %.1f s", time.monotonic() - begin)
        if isinstance(result, Path) and not own_json:
            _print_result(result, as_json=as_json)

    app.meta.default(start)
    app.meta.suppress_keyboard_interrupt = False
    return app


def _check_whole_numbers(_app: App, _words: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Refuse 1.5 where a whole number is needed; cyclopts would round it."""
    for argument in (one for one in arguments if _types_in(one.hint) == {int}):
        for word in (token.value for token in argument.tokens):
            if re.fullmatch(r"[+-]?(\d+\.\d*|\.\d+)", word) and not float(word).is_integer():
                raise CycloptsError(msg=f"Invalid value for {argument.name}: {word} is not a whole number.")


def _types_in(hint: Any) -> set[Any]:
    """The types inside unions, tuples and annotations."""
    inner = typing.get_args(hint)
    if typing.get_origin(hint) is Annotated:
        inner = inner[:1]
    return set().union(*(_types_in(one) for one in inner)) - {type(None), ...} if inner else {hint}


def _step(word: str) -> Callable[..., Any]:
    module, _, name = COMMANDS[word].partition(":")
    step: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return step


def _docstring(target: str) -> str:
    """The docstring of a step, read from its source without importing it."""
    module, _, name = target.partition(":")
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        return ""
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    found = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name]
    return (ast.get_docstring(found[0]) or "") if found else ""


def _examples(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if re.match(r"\s*tomostain [a-z]", line)]


def _sentence(error: Exception) -> tuple[str, int]:
    """The message of an error, and the exit status."""
    cause: BaseException = error
    while isinstance(cause, ImportError) and cause.__cause__ is not None:
        cause = cause.__cause__
    text = _one_line(cause)
    if _is_lack_of_memory(cause, text):
        return (
            f"not enough memory ({text}); close other programs, or raise the limit (ulimit -v)",
            FAULT,
        )
    if isinstance(cause, OSError) and cause.strerror:
        if cause.errno == errno.ENOSPC:
            return "the disk is full; free some space and run the command again", FAULT
        where = f"{os.fsdecode(cause.filename)}: " if isinstance(cause.filename, str | bytes) else ""
        return f"{where}{cause.strerror}", FAULT
    if isinstance(cause, ValueError | OSError | ModuleNotFoundError) and not isinstance(cause, UnicodeError):
        return text, FAULT
    frames = traceback.extract_tb(cause.__traceback__)
    place = f", {Path(frames[-1].filename).name} line {frames[-1].lineno}" if frames else ""
    return (
        f"this is a bug in tomostain ({type(cause).__name__}: {text}{place}); please report it with what "
        f"{TRACEBACK}=1 shows when the command is run again",
        OUR_FAULT,
    )


def _is_lack_of_memory(error: BaseException, text: str) -> bool:
    if isinstance(error, MemoryError):
        return True
    if isinstance(error, SystemError):  # of an extension module that could not be loaded
        return resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY
    if isinstance(error, OSError) and not isinstance(error, BlockingIOError) and error.errno is not None:
        return error.errno in (errno.ENOMEM, errno.EAGAIN)
    return isinstance(error, RuntimeError | ImportError) and bool(_NO_MEMORY.search(text))


def _usage(error: CycloptsError) -> str:
    """What is wrong with the command line, with the name of the setting."""
    text, argument = _one_line(error), error.argument
    name = argument.name if argument is not None else ""
    sources = {token.source for token in argument.tokens if token.source != "cli"} if argument is not None else set()
    where = "".join(f" in {source}" for source in sources if source not in text)
    return text if name.lstrip("-") in text or name.lstrip("-").replace("-", "_") in text else f"{name}{where}: {text}"


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text or type(error).__name__


def _say(command: str, sentence: str, status: int) -> int:
    LOGGER.error("%s: %s", command, sentence)
    LOGGER.debug("", exc_info=True)
    return status


def _report_to(stream: TextIO | None, *, quiet: bool = False, verbose: bool = False, file: Path | None = None) -> None:
    """Send the log ``tomostain`` to a stream, as plain sentences, and to a file, with times; None undoes it."""
    for handler in LOGGER.handlers[:]:
        LOGGER.removeHandler(handler)
        handler.close()
    LOGGER.propagate = stream is None
    if stream is None:
        LOGGER.setLevel(logging.NOTSET)
        return
    shown = logging.StreamHandler(stream)
    shown.setLevel(logging.WARNING if quiet else logging.DEBUG if verbose else logging.INFO)
    shown.addFilter(lambda record: bool(record.getMessage()))
    LOGGER.addHandler(shown)
    if file is not None:
        written = logging.FileHandler(file, encoding="utf-8", errors="backslashreplace")
        written.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        LOGGER.addHandler(written)
    LOGGER.setLevel(logging.DEBUG if file is not None else shown.level)


def _print_result(path: Path, *, as_json: bool) -> None:
    """Print a path as the bytes that the file system knows it by, or the record of the output."""
    text = f"{path}\n"
    if as_json:
        record = runs.read_record(path) if runs.is_complete(path) else {}
        text = json.dumps({"out": str(path), **{key: record.get(key) for key in ("step", "results")}}) + "\n"
    try:
        sys.stdout.write(text)
    except UnicodeEncodeError:
        sys.stdout.flush()
        sys.stdout.buffer.write(os.fsencode(text))


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    if issubclass(category, UserWarning):
        LOGGER.warning("warning: %s", message)
