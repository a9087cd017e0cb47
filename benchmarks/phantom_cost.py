"""What a phantom specimen costs: python benchmarks/phantom_cost.py [Z Y X [SLIDES]] prints time, memory and machine."""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from pathlib import Path

from _results import Figure, save
from tomostain.phantom.cohort import CohortRecipe, plan_cohort, write_specimen

MINUTES, GIB = 5.0, 4.0
"""What a specimen of 256 x 512 x 512 voxels with 4 slides may cost on two cores."""


def main() -> None:
    numbers = [int(word) for word in sys.argv[1:]] or [256, 512, 512, 4]
    size, slides = (numbers[0], numbers[1], numbers[2]), numbers[3] if len(numbers) > 3 else 4
    plan = plan_cohort(CohortRecipe(specimens=1, slides=slides, size=size))[0]
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        write_specimen(Path(folder), plan)
        seconds = time.perf_counter() - start
        written = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())
    peak_gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"specimen of {size[0]} x {size[1]} x {size[2]} voxels with {slides} slides: {seconds:.0f} s,")
    print(f"  peak memory {peak_gib:.2f} GiB in all, {written / 2**20:.0f} MiB written")
    if numbers == [256, 512, 512, 4]:
        print(f"  allowed: {MINUTES * 60:.0f} s and {GIB:.0f} GiB")
    what = f"phantom of {size[0]} x {size[1]} x {size[2]} with {slides} slides"
    save("phantom_cost", [Figure(what, f"{seconds:.0f} s", target=f"{MINUTES * 60:.0f} s")], peak_gib=peak_gib)


if __name__ == "__main__":
    main()
