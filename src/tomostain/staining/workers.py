"""Settings of every Dask worker that we start, on this machine and on a cluster's nodes."""

from __future__ import annotations

from collections.abc import Mapping

THREADS = 2
"""Tasks of a worker at once: while one runs its network, the other reads or writes."""
QUIET: Mapping[str, object] = {
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "500ms",
    "distributed.admin.system-monitor.interval": "5s",
}
"""Dask's own settings. By default a worker looks at itself a hundred times a second, which takes 5 % of a core from a
network."""


def as_environment(settings: Mapping[str, object]) -> str:
    """Dask settings as a shell exports them for ``dask worker``."""
    names = (f"{key.upper().replace('.', '__').replace('-', '_')}={value}" for key, value in settings.items())
    return " ".join(f"DASK_{name}" for name in names)
