"""Mutate valid files and count how the readers end: `PYTHONPATH=tests python -m fuzz [FORMAT [MUTATION SEED]]`.

Without a case it gives every format --each mutations and prints a table; with FORMAT MUTATION SEED it replays one.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import sys
import time
from collections import Counter
from collections.abc import Sequence

from fuzz.cases import cases_for
from fuzz.formats import FORMATS
from fuzz.judge import GOOD
from fuzz.pool import Case, run_all

LIBRARIES = ("tifffile", "imagecodecs", "zarr", "numcodecs", "h5py", "nibabel", "SimpleITK", "pillow", "openslide-bin")


def main(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("case", nargs="*", help="a FORMAT, or FORMAT MUTATION SEED")
    parser.add_argument("--each", type=int, default=300, help="mutations for each format (default 300)")
    parser.add_argument("--from", type=int, default=0, dest="start", help="first seed (default 0)")
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, help="child processes (default: one a core)"
    )
    asked = parser.parse_args(words)
    if len(asked.case) == 3:
        (outcome,) = run_all([Case(asked.case[0], asked.case[1], int(asked.case[2]))])
        print(f"{outcome.verdict.kind}: {outcome.verdict.detail}  ({outcome.seconds:.2f} s, {outcome.mib:.0f} MiB)")
        return 0 if outcome.verdict.good or outcome.verdict.kind == "skipped" else 1
    chosen = asked.case or list(FORMATS)
    begun = time.monotonic()
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}; {_versions()}")
    print(f"{'format':24}{'cases':>6}" + "".join(f"{kind:>9}" for kind in GOOD) + f"{'faults':>8}{'s':>7}{'MiB':>7}")
    faults = 0
    for name in chosen:
        outcomes = run_all(cases_for(name, asked.each, start=asked.start), workers=asked.workers)
        told = [outcome for outcome in outcomes if outcome.verdict.kind != "skipped"][: asked.each]
        kinds = Counter(outcome.verdict.kind for outcome in told)
        bad = [outcome for outcome in told if not outcome.verdict.good]
        faults += len(bad)
        slowest, most = max(outcome.seconds for outcome in told), max(outcome.mib for outcome in told)
        counts = "".join(f"{kinds[kind]:>9}" for kind in GOOD)
        print(f"{name:24}{len(told):>6}{counts}{len(bad):>8}{slowest:>7.1f}{most:>7.0f}", flush=True)
        for outcome in bad:
            print(f"  {outcome}", flush=True)
    print(f"{time.monotonic() - begun:.0f} s; faults: {faults}")
    return 1 if faults else 0


def _versions() -> str:
    found = []
    for name in LIBRARIES:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return ", ".join(found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
