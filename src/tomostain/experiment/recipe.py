"""What an experiment compares: every setting, with unit and reason."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from tomostain._settings import Within, check_numbers
from tomostain.learning.recipe import Precision, TrainRecipe

USUAL = ("pix2pix", "cyclegan", "paired_cyclegan", "supervised")


@Parameter(name="*")
@dataclass(frozen=True)
class ExperimentRecipe:
    """What is compared, on what, and for how long."""

    methods: tuple[str, ...] = ()
    """What is compared: pix2pix cyclegan paired_cyclegan supervised, with changes behind colons (supervised:-ssim,
    cyclegan:width=16, supervised:from=STAINER), or names in the file of --variants. Default: all in it,
    or those four."""
    variants: Path | None = None
    """YAML file of named entries, each a method with settings of `tomostain train`."""
    folds: Annotated[int, Within(2, 10_000)] = 4
    """Parts that the specimens are dealt into; each is left out once."""
    seeds: Annotated[int, Within(1, 10_000)] = 3
    """Trainings of each method and fold, from other first weights."""
    hours: Annotated[float | None, Within(0, 1e4, above=True)] = None
    """Time of each training; its steps are found once for each method."""
    steps: Annotated[int | None, Within(1, 1e9)] = None
    """Steps of each training; with --hours both are done, and there are two tables."""
    against: str | None = None
    """Compare each method with this one only; default: every two of them."""
    score_on: Path | None = None
    """Score on these pairs of the specimens left out, such as better placed ones; default: PAIRS."""
    metrics: tuple[str, ...] = ("ssim", "psnr", "lpips", "ms_ssim")
    """Metrics by name; those that need LPIPS' weights are lpips and KID."""
    only: str | None = None
    """Do this run alone (METHOD/FOLD/SEED, or BUDGET before it); for a cluster, where each run is a job."""
    plan_only: bool = False
    """Check everything, settle the steps of each method, write plan.json, and train nothing."""
    precision: Precision = "32-true"
    """Arithmetic of all trainings."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    threads: Annotated[int | None, Within(1, 4096)] = None
    """CPU threads of the trainings (all cores if not given)."""

    def __post_init__(self) -> None:
        check_numbers(self)

    @property
    def words(self) -> tuple[str, ...]:
        """The entries that are compared; empty: all in the file."""
        return self.methods or (() if self.variants else USUAL)

    @property
    def base(self) -> TrainRecipe:
        """What all trainings have in common."""
        return TrainRecipe(
            precision=self.precision, device=self.device, threads=self.threads, validate_every=0, sample_every=0
        )
