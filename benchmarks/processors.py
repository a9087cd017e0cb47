"""Run the numeric tests as other processors would, and print a table of what passes.

python benchmarks/processors.py [--only inference staining] [--threads 1 2]

The convolutions of PyTorch and OpenVINO are limited to an instruction set by ONEDNN_MAX_CPU_ISA, other operations of
PyTorch by ATEN_CPU_CAPABILITY. A processor cannot be given instructions that it lacks: a limit above them changes
nothing, and the table says so.
"""

from __future__ import annotations

import argparse
import itertools
import os
import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PROCESSORS = {
    "AVX2": {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"},
    "AVX-512": {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE"},
    "this one": {},
}
"""Name -> environment."""
FLAGS = {"AVX2": "avx2", "AVX-512": "avx512f", "this one": ""}
TESTS = {
    "learning": ["tests/learning"],
    "scoring": ["tests/scoring"],
    "inference": ["tests/inference"],
    "staining": ["tests/staining/test_local.py"],
    "steps": ["tests/steps/test_stain.py", "-k", "tiled or region or format or background"],
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", default=list(TESTS), choices=list(TESTS))
    parser.add_argument("--threads", nargs="*", type=int, default=[1, 2])
    asked = parser.parse_args()
    flags = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags")), "")
    print("| processor | threads | tests | passed | failed | skipped | s |\n|---|---|---|---|---|---|---|")
    failed = 0
    for (name, limits), threads, tests in itertools.product(PROCESSORS.items(), asked.threads, asked.only):
        if FLAGS[name] not in flags:
            print(f"| {name} | {threads} | {tests} | not on this machine: as this one | | | |", flush=True)
            continue
        environment = {**os.environ, **limits, "OMP_NUM_THREADS": str(threads), "TOMOSTAIN_COMPILE": "1"}
        begun = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "--timeout=900", *TESTS[tests]],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        count = {word: int(n) for n, word in re.findall(r"(\d+) (passed|failed|error|skipped)", done.stdout[-400:])}
        bad = count.get("failed", 0) + count.get("error", 0) + (done.returncode not in (0, 1))
        failed += bad
        numbers = f"{count.get('passed', 0)} | {bad} | {count.get('skipped', 0)} | {time.monotonic() - begun:.0f}"
        print(f"| {name} | {threads} | {tests} | {numbers} |", flush=True)
        if bad:
            print(*re.findall(r"^(?:FAILED|ERROR) .*$", done.stdout, re.MULTILINE), sep="\n", file=sys.stderr)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
