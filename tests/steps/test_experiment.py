"""A comparison from pairs to its page; killed at any point and gone on with, it gives the same results."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from tomostain import runs
from tomostain.experiment import WORKFLOW
from tomostain.experiment.results import TIMING
from tomostain.images.geometry import Grid
from tomostain.pairs.pair import Pair, save_pair
from tomostain.reporting.experiment import as_markdown, experiment_parts
from tomostain.steps.experiment import ExperimentRecipe, experiment

VARIANTS = """
small: {method: supervised, width: 4, depth: 1, patch_px: 32, batch: 1, checkpoint_every: 2, weights: {perceptual: 0}}
gan: {method: paired_cyclegan, width: 4, depth: 1, patch_px: 32, discriminator_width: 4, discriminator_depth: 1,
  checkpoint_every: 2}
"""
WORDS = ["--steps", "5", "--folds", "2", "--seeds", "2", "--threads", "1", "--metrics", "ssim", "psnr"]


@pytest.fixture
def study(tmp_path, rng):
    """A folder with pairs of four specimens, and a file of two small entries."""
    shape, whole = (48, 52), np.ones((48, 52), bool)
    for i in range(4):
        label = rng.random(shape) > 0.5
        pair = Pair(
            ct=(label + rng.normal(0, 0.1, (1, *shape))).astype(np.float32),
            stain=np.where(label[..., None], [180, 190, 220], [240, 240, 240]).astype(np.uint8),
            mask=whole,
            confidence=whole.astype(np.float32),
            grid=Grid(shape, (5.0, 5.0)),
            specimen=f"S{i}",
            name=f"S{i}_a",
        )
        save_pair(pair, tmp_path / "pairs" / f"S{i}_a.pair.zarr")
    (tmp_path / "variants.yaml").write_text(VARIANTS)
    return tmp_path


def command(study, out, *more):
    return [sys.executable, "-m", "tomostain", "experiment", str(study / "pairs"), str(study / out), *WORDS,
            "--variants", str(study / "variants.yaml"), *more]  # fmt: skip


def results(out):
    text = json.loads((out / "results.json").read_text())
    text.pop(TIMING)
    return text


def three_digits(value):
    return f"{value:.{1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3}f}"


def recipe(study, **changes):
    return ExperimentRecipe(variants=study / "variants.yaml", folds=2, seeds=1, metrics=("ssim", "psnr"), **changes)


@pytest.mark.filterwarnings("ignore:the experiment goes on without LPIPS")
def test_a_comparison_has_scores_of_every_specimen_and_says_no_more_than_they_show(study):
    page = experiment(study / "pairs", study / "out", recipe=recipe(study, steps=2))
    found = results(study / "out")
    assert found["runs"] == {"done": 4, "of": 4}
    scores = found["specimens"]["steps"]
    assert set(scores) == {"small", "gan", "colour table"}
    assert {name: set(of["ssim"]) for name, of in scores.items()} == {name: {"S0", "S1", "S2", "S3"} for name in scores}
    assert [one["metric"] for one in found["tables"]["steps"]["comparisons"]] == ["ssim", "psnr"]
    text = page.read_text()
    assert text.count("<h2>") == 5
    assert "With 4 specimens no test over specimens can show a difference." in text
    markdown = as_markdown(experiment_parts(json.loads((study / "out" / "results.json").read_text())))
    mean = np.mean(list(scores["gan"]["psnr"].values()))
    assert f" {three_digits(mean)} (" in next(
        line for line in markdown.split("Scores: ")[1].splitlines() if "| gan" in line
    )
    gain = np.mean([scores["small"]["psnr"][name] - scores["gan"]["psnr"][name] for name in scores["gan"]["psnr"]])
    gains = next(line for line in markdown.split("Gains over")[1].splitlines() if "| small - gan" in line)
    assert f"| {three_digits(gain)} (" in gains
    assert runs.read_record(study / "out")["results"]["runs"] == {"done": 4, "of": 4}


@pytest.mark.filterwarnings("ignore:the experiment goes on without LPIPS")
def test_methods_are_added_and_single_runs_are_jobs_of_a_cluster(study):
    out = study / "out"
    assert experiment(study / "pairs", out, recipe=recipe(study, steps=2, plan_only=True)) == out / "plan.json"
    planned = json.loads((out / "plan.json").read_text())["runs"]
    for name in planned[1:]:
        assert experiment(study / "pairs", out, recipe=recipe(study, steps=2, only=name)) == out / "runs" / name
    before = {name: (out / "runs" / name / "outcome.json").stat().st_mtime_ns for name in planned[1:]}
    dated = (out / "plan.json").stat().st_mtime_ns
    experiment(study / "pairs", out, recipe=recipe(study, steps=2, methods=("small",)))
    assert results(out)["runs"] == {"done": 2, "of": 2}
    experiment(study / "pairs", out, recipe=recipe(study, steps=2))
    assert results(out)["runs"] == {"done": 4, "of": 4}
    assert {name: (out / "runs" / name / "outcome.json").stat().st_mtime_ns for name in planned[1:]} == before
    assert (out / "plan.json").stat().st_mtime_ns >= dated


@pytest.mark.timeout(1200)
def test_killed_at_three_points_and_gone_on_with_it_gives_the_same_results(study):
    subprocess.run(command(study, "whole"), check=True, capture_output=True)
    rng = np.random.default_rng()
    for kill in range(3):
        begun = subprocess.Popen(command(study, "broken"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wanted = int(rng.integers(1, 12)) + 8 * kill  # files of checkpoints and outcomes that are there by then
        while begun.poll() is None:
            finished, begun_with = (
                [*(study / "broken").glob(f"runs/**/{name}")] for name in ("outcome.json", "step-*")
            )
            if 4 * len(finished) + len(begun_with) >= wanted:
                time.sleep(float(rng.uniform(0, 0.3)))
                break
            time.sleep(0.01)
        if begun.poll() is None:
            os.kill(begun.pid, signal.SIGKILL)
        begun.wait()
    subprocess.run(command(study, "broken"), check=True, capture_output=True)
    assert results(study / "broken") == results(study / "whole")
    assert results(study / "whole")["runs"] == {"done": 8, "of": 8}


def test_the_workflow_names_every_run_as_a_job(study):
    snakemake = pytest.importorskip("snakemake", reason="snakemake is not installed: pip install 'tomostain[workflow]'")
    assert snakemake
    options = " ".join([*WORDS[:6], *WORDS[8:], "--variants", str(study / "variants.yaml")])
    config = ["--config", f"pairs={study / 'pairs'}", f"out={study / 'out'}", f"options={options}"]
    words = [sys.executable, "-m", "snakemake", "-s", str(WORKFLOW), "--cores", "1", "-d", str(study)]
    subprocess.run([*words, "--until", "plan", *config], check=True, capture_output=True)
    shown = subprocess.run([*words, "-n", *config], check=True, capture_output=True, text=True)
    assert shown.stdout.count("rule run:") == 8
