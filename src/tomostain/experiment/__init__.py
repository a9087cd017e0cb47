"""Methods x folds x seeds on a user's own pairs, and what may be claimed from them."""

from pathlib import Path

WORKFLOW = Path(__file__).with_name("workflow") / "Snakefile"
"""The same for a cluster, each run a job: ``snakemake -s WORKFLOW --config pairs=... out=... options=...``."""
