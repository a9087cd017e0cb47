"""Ctrl-C during a training: the first one waits for the end of the step, so that the state can be kept."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def first_interrupt_waits(active: bool = True) -> Iterator[Callable[[], bool]]:
    """Yield a function that returns whether Ctrl-C was pressed; a second press interrupts at once.

    Outside the main thread, and where another handler of Ctrl-C is set, nothing is changed.
    """
    usual = signal.getsignal(signal.SIGINT)
    pressed = threading.Event()
    if (
        not active
        or threading.current_thread() is not threading.main_thread()
        or usual is not signal.default_int_handler
    ):
        yield pressed.is_set
        return

    def note(number: int, frame: FrameType | None) -> None:
        pressed.set()
        signal.signal(signal.SIGINT, usual)

    signal.signal(signal.SIGINT, note)
    try:
        yield pressed.is_set
    finally:
        signal.signal(signal.SIGINT, usual)
