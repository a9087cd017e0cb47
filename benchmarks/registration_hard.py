"""Registration of hard pairs, made like soft tissue: python benchmarks/registration_hard.py FIRST LAST [ROWS.jsonl].

A CT plane and a section of it (phantom/section_pair.py, 190 x 240 px of 9 um), registered from no start, for each seed
from FIRST to LAST; then each section to the CT of another seed, which must be refused. Seeds below 100 are for tuning.
ROWS receives the lines that registration_calibration.py reads.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from tomostain.phantom.section_pair import HardPair, hard_pair
from tomostain.registration.align import align, placement_of
from tomostain.registration.hints import Hints
from tomostain.registration.modality import read_stained, read_target

SHAPE, PIXEL_UM = (190, 240), 9.0
OTHER = 50
"""By how much the seed of a strange CT is higher."""


def registered(pair: HardPair, other: HardPair | None, name: str) -> dict[str, object] | None:
    """A line of results; None where there is no placement at all. With ``other``, its CT is taken."""
    stained = read_stained(pair.slide, PIXEL_UM)
    try:
        done = align(read_target((other or pair).ct), stained, Hints(shrinkage=0.0))
    except ValueError as error:
        print(f"{name}: {error}", flush=True)
        return None
    score = done.score
    row: dict[str, object] = {"cohort": "hard", "specimen": name, "slide": name, "way": "other" if other else "none"}
    row |= {"probability": score.probability, **vars(score)}
    shown = f"{name}: {'other CT, ' if other else ''}probability {score.probability:.2f}"
    if other is None:
        px = np.argwhere(pair.tissue)[::23].astype(float)
        found, true = (of.slide_to_volume_um(px)[:, 1:] for of in (placement_of(done, stained), pair.truth))
        off = np.linalg.norm(found - true, axis=1)
        row["tre_um"] = float(np.median(off))
        shown += (
            f", median TRE {np.median(off) / PIXEL_UM:.2f} px, 90th percentile {np.percentile(off, 90) / PIXEL_UM:.2f}"
            f" px, expected over true {score.expected_tre_um / np.median(off):.2f}"
        )
    print(shown, flush=True)
    return row


def main(first: int, last: int, rows: Path | None) -> None:
    seeds = range(first, last + 1)
    for others in (False, True):
        for seed in seeds:
            other = hard_pair(seed + OTHER, shape=SHAPE, pixel_um=PIXEL_UM) if others else None
            row = registered(hard_pair(seed, shape=SHAPE, pixel_um=PIXEL_UM), other, str(seed))
            if row is not None and rows is not None:
                with rows.open("a") as file:
                    file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]) if len(sys.argv) > 3 else None)
