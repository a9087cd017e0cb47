"""How the C library hands out memory while a network works: large layers keep their pages from one tile to the next."""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
"""glibc's names for mallopt (malloc.h)."""
_KEPT_BYTES = 128 * 2**20


def keep_pages() -> bool:
    """Let freed memory stay with this process, and threads share one heap; returns whether the C library can.

    By default glibc gives every large array back when it is freed, and the kernel clears a million pages anew for each
    tile, which costs up to half of the time. Arrays over 128 MiB (blocks of a volume) are still given back.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # musl, macOS, Windows have none
        return False
    wishes = ((_ARENA_MAX, 1), (_MMAP_THRESHOLD, _KEPT_BYTES), (_TRIM_THRESHOLD, 2**31 - 1))
    done = [bool(mallopt(name, value)) for name, value in wishes]
    return all(done)


def give_back_pages() -> None:
    """Hand freed memory back now, so that what this process holds is what it uses."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError, TypeError):
        return
