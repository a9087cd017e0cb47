"""Limits of one request to the decoding process: memory beside the requested window, and processor time."""

from __future__ import annotations

import os
import sys
from pathlib import Path

MEMORY_BYTES = 2**30
"""Beside what is loaded already and the requested window."""
COPIES = 4
"""Copies of the window in memory: RGBA, RGB and the library's own."""
PROCESSOR_S = 6.0
PROCESSOR_S_PER_MB = 0.5
"""Beyond the first seconds, per decoded megabyte: 50 times what JPEG 2000 takes."""
_STATM = Path("/proc/self/statm")


def allow(window_bytes: int) -> None:
    """Limit this process to what one request of ``window_bytes`` may need; only Linux and macOS have such limits."""
    if sys.platform == "win32":
        return
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = used.ru_utime + used.ru_stime + PROCESSOR_S + PROCESSOR_S_PER_MB * window_bytes / 1e6
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (int(seconds) + 1, hard))
    if _STATM.exists():
        mapped = int(_STATM.read_text(encoding="utf-8").split()[0]) * os.sysconf("SC_PAGESIZE")
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (mapped + MEMORY_BYTES + COPIES * window_bytes, hard))
