"""stub"""

from typing import Any


def workers_of(cluster: str | None) -> int:
    return 1


def stain_on_cluster(*a: Any) -> None:
    raise ValueError("no")
