"""Messages of a run: sentences in the log ``tomostain``, and progress bars on stderr."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from tqdm import tqdm

Item = TypeVar("Item")
LOGGER = logging.getLogger("tomostain")


def say(text: str) -> None:
    """Report a result or a decision: on stderr on the command line, in the log ``tomostain`` elsewhere."""
    LOGGER.info(text)


def say_verbosely(text: str) -> None:
    """The same where more was asked for (``--verbose``), and in a log file."""
    LOGGER.debug(text)


def progress(items: Iterable[Item], *, total: int | None = None, desc: str = "", unit: str = "it") -> Iterator[Item]:
    """Yield items and show progress and remaining time on stderr; in a log, one line in ten seconds."""
    yield from _bar(items, total=total, desc=desc, unit=unit)


def progress_bar(*, total: int, initial: int = 0, desc: str = "", unit: str = "it") -> tqdm[Any]:
    """A bar as ``progress`` shows it, moved by ``update`` and then closed; ``initial`` was done before."""
    return _bar(None, total=total, initial=initial, desc=desc, unit=unit, unit_scale=True)


def _bar(items: Any, **settings: Any) -> tqdm[Any]:
    live = sys.stderr.isatty()
    interval = 0.2 if live else 10.0
    return tqdm(items, file=sys.stderr, mininterval=interval, dynamic_ncols=live, disable=_is_quiet(), **settings)


@contextmanager
def stages(*, desc: str = "") -> Iterator[Callable[[str, float], None]]:
    """A bar that is moved by the name of a stage and the share of all work that is done, 0 to 1."""
    live = sys.stderr.isatty()
    with tqdm(
        total=1.0,
        desc=desc,
        file=sys.stderr,
        mininterval=0.2 if live else 10.0,
        dynamic_ncols=live,
        disable=_is_quiet(),
        bar_format="{l_bar}{bar}| {elapsed}<{remaining} {postfix}",
    ) as bar:

        def move(stage: str, share: float) -> None:
            bar.set_postfix_str(stage, refresh=False)
            bar.update(share - bar.n)

        yield move


def _is_quiet() -> bool:
    """Whether progress bars are unwanted, because the terminal shows warnings only."""
    shown = [handler.level for handler in LOGGER.handlers if not isinstance(handler, logging.FileHandler)]
    return max(LOGGER.level, *shown, 0) > logging.INFO
