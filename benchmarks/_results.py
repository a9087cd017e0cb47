"""What a benchmark writes: benchmarks/results/NAME.json, from which table.py makes docs/measurements.md."""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

FOLDER = Path(__file__).resolve().parent / "results"
_PACKAGES = ("tomostain", "torch", "openvino", "numpy")


@dataclass(frozen=True)
class Figure:
    """One line of the table."""

    what: str
    value: str
    """The figure with its unit, as it is to be read."""
    ratio: float | None = None
    """How many times as good as the peer."""
    peer: str = ""
    """What the ratio compares with."""
    target: str = ""


def save(name: str, figures: Sequence[Figure], *, peak_gib: float | None = None, note: str = "") -> Path:
    """Write the figures of a benchmark, with the command that was typed, the machine and today's date."""
    text = {
        "name": name,
        "command": " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *map(_without_folders, sys.argv[1:])]),
        "date": datetime.date.today().isoformat(),
        "commit": _commit(),
        "machine": machine(),
        "peak_gib": peak_gib,
        "note": note,
        "figures": [
            {key: value for key, value in asdict(figure).items() if value not in (None, "")} for figure in figures
        ],
    }
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / f"{name}.json"
    path.write_text(json.dumps(text, indent=1) + "\n", encoding="utf-8")
    print(f"written: {path}; python benchmarks/table.py makes docs/measurements.md of it")
    return path


def _without_folders(word: str) -> str:
    """A word of the command; of an absolute path only its name, since folders of one machine repeat nothing."""
    return Path(word).name if Path(word).is_absolute() else word


def machine() -> dict[str, object]:
    """Processor, cores, memory, system, load now, and versions of what computes."""
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()}, Python {platform.python_version()}",
        "load": round(os.getloadavg()[0], 1),
        "versions": {name: metadata.version(name) for name in _PACKAGES if _has(name)},
    }


def processor() -> str:
    """The processor's name, and the widest of its instruction sets that matter here."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    sets = [flag for flag in ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16") if flag in flags]
    return f"{name} ({', '.join(sets)})" if sets else name


def _has(package: str) -> bool:
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True


def _commit() -> str:
    done = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=FOLDER.parent, capture_output=True, text=True, check=False
    )
    return done.stdout.strip()
