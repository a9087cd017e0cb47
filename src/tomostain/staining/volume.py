"""A whole volume: settle or resume the run, stain its blocks here or on a cluster, write its metadata last."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tomostain import runs
from tomostain.images.image import Volume
from tomostain.inference.backends import BACKENDS
from tomostain.learning.stainer import Stainer
from tomostain.staining.blocks import Cut
from tomostain.staining.cluster import Job, stain_on_cluster, threads_of
from tomostain.staining.journal import Journal
from tomostain.staining.local import stain_here
from tomostain.staining.memory import give_back_freed
from tomostain.staining.prepare import Options, Settings, identity, predictors_of, settle, settled_before
from tomostain.staining.run import Run, begin, go_on, journal_path
from tomostain.staining.work import Work


def stain_volume(
    model: Stainer, stainer: Path, ct: Volume, cut: Cut, out: Path, *, options: Options, clear: Callable[[], None]
) -> dict[str, Any]:
    """Stain a cut of a volume into ``out``; returns what the record says about the result.

    ``stainer`` is the folder that the model was loaded from, for workers. ``clear`` removes what lies at ``out``
    before a new run writes there.

    Raises
    ------
    ValueError
        The backend cannot be used, the run does not fit the memory, the network's output is not finite, or an
        unfinished run lies at ``out`` and is another one or is not to be resumed.
    OSError
        The volume cannot be read, or the disk is full; the run can be resumed.
    """
    found = identity(model, ct, cut, options)
    journal = _unfinished(out, resume=options.resume)
    if journal is None:
        settled = settle(model, ct, cut, options)
        clear()
        writer, journal = begin(out, settled.plan, {"identity": found, **settled.to_json()})
    else:
        try:
            settled = settled_before(model, cut, journal.head, found, options)
        except ValueError:
            journal.close()
            raise
        writer = go_on(out, settled.plan)
    _report(settled, ct)
    work = Work(ct, settled.plan, writer, settled.background, batch=BACKENDS[settled.backend].batch)
    with Run(settled.plan, writer, journal) as run:
        if options.cluster:
            how = (settled.backend, model.device.type, threads_of(options.cluster), options.trust)
            stain_on_cluster(Job(work, stainer, model.sha256, *how), run, options.cluster)
        else:
            predictors = predictors_of(model, ct, settled)
            give_back_freed()
            stain_here(work, run, predictors)
        results = _results(settled, run, journal.head)
    about: dict[str, Any] = {"stainer_sha256": model.sha256, "ct": ct.name, "backend": settled.backend}
    if "grey_map" in ct.about:
        about["grey_map"] = ct.about["grey_map"]
    simulated = simulated_parts(model, ct)
    if simulated:
        about["simulated"] = results["simulated"] = simulated
    if settled.background is not None:
        about["background"] = {**settled.background.to_json(), "tiles_skipped": run.facts.skipped}
    writer.declare(cut.grid(ct.grid), stain=model.stain, attributes=about)
    return results


def simulated_parts(model: Stainer, ct: Volume) -> str | None:
    """What of a stained volume comes from the phantom and not from a real specimen, in words."""
    parts = [f"the CT ({ct.simulated})"] if ct.simulated else []
    parts += [f"{model.simulated} that the stainer was trained on"] if model.simulated else []
    return " and ".join(parts) or None


def _unfinished(out: Path, *, resume: bool) -> Journal | None:
    """The journal of an unfinished run that is to be resumed; None where a run begins."""
    journal = Journal.resume(journal_path(out))
    if journal is not None and not resume:
        journal.close()
        raise ValueError(f"{out} holds an unfinished staining; continue it with --resume, or remove it first")
    return journal


def _report(settled: Settings, ct: Volume) -> None:
    """Print on stderr what was settled, before the first block."""
    for trial in settled.trials:
        runs.say(f"backend {trial}")
    plan = settled.plan
    cost = plan.network_px() / plan.stained_px
    runs.say(
        f"{ct.name}: {plan.stained_px / 1e6:.1f} Mvoxel, blocks: {len(plan.blocks())}, tiles of {plan.tile_px[0]} x "
        f"{plan.tile_px[1]} px, halos cost {cost:.2f} x, backend {settled.backend}"
    )
    if settled.memory is not None:
        runs.say(f"predicted peak memory: {settled.memory}")


def _results(settled: Settings, run: Run, head: Mapping[str, Any]) -> dict[str, Any]:
    facts = run.facts
    return {
        "ct_min": facts.ct_min,
        "ct_max": facts.ct_max,
        "backend": settled.backend,
        "self_test": head["trials"],
        "tile_px": settled.plan.tile_px,
        "network_px_per_voxel": settled.plan.network_px() / settled.plan.stained_px,
        "tiles": facts.tiles,
        "tiles_constant": facts.constant,
        "tiles_skipped": facts.skipped,
        "background": None if settled.background is None else settled.background.to_json(),
    }
