"""How well slides are registered: python benchmarks/registration.py run | placed | table.

Cohorts are phantoms: `tomostain phantom COHORT --specimens 16 --slides 4 --size 200 400 400 --seed 2000`. Seeds 1000 to
1099 are for tuning and calibration, 2000 to 2099 for the table. `run COHORT RESULTS.jsonl --ways prior none` appends a
line for each slide and way (those that are there are kept), `placed COHORT PLACEMENTS` judges what `tomostain register`
wrote, `table RESULTS.jsonl` prints the figures. registration_calibration.py fits the constants of quality.py to them.
Ways: prior (the true placement disturbed by up to 250 um along each axis and 10 degrees about each), none, other (the
CT of the next specimen), nothing (an empty slide of dirt), itk (SimpleITK, Mattes mutual information, affine then
B-spline, from the same disturbed start).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import resource
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy import ndimage, stats
from scipy.spatial.transform import Rotation

from _results import Figure, save
from tomostain.images.geometry import Placement
from tomostain.io.slides import read_slide
from tomostain.io.volumes import read_volume
from tomostain.registration import quality
from tomostain.registration.align import align, placement_of, pose_of
from tomostain.registration.coarse import Pose
from tomostain.registration.modality import Stained, Target, read_stained, read_target

WAYS = ("prior", "none", "other", "nothing", "itk")
SCORED = tuple(field.name for field in dataclasses.fields(quality.Score))
OFF_UM, OFF_DEG = 250.0, 10.0
PUBLISHED = (
    ("plane orientation error, mean (deg)", "0.6", "<= 0.4"),
    ("within 3 deg and 5 voxels (%)", "94.7", ">= 99 prior, >= 96 none"),
    ("TRE after affine, median (voxels)", "~10", "<= 2.5"),
    ("the same of the elastic placement's affine part", "-", "-"),
    ("the same of the affine map closest to the truth", "-", "-"),
    ("TRE after elastic, median (voxels)", "-", "<= 1.0"),
    ("TRE after elastic, 90th percentile (voxels)", "-", "<= 2.5"),
    ("placements with a fold", "-", "0"),
    ("good placements refused (%)", "-", "<= 2"),
    ("expected against true TRE, rank correlation", "-", ">= 0.7"),
    ("found against true thickness, rank correlation", "-", "-"),
    ("seconds a slide, median (wall)", "-", "<= 60 prior, <= 240 none"),
    ("seconds a slide, median (processor)", "-", "-"),
    ("peak memory (GiB)", "-", "<= 4"),
)


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = words.add_subparsers(dest="command", required=True)
    runner = commands.add_parser("run")
    runner.add_argument("cohort", type=Path)
    runner.add_argument("results", type=Path)
    runner.add_argument("--ways", nargs="+", choices=WAYS, default=["prior"])
    runner.add_argument("--specimens", nargs="*", default=None)
    runner.add_argument("--slides", type=int, default=None, help="slides of each specimen")
    runner.add_argument("--placements", type=Path, default=None, help="keep what `none` places and accepts here")
    known = commands.add_parser("placed")
    known.add_argument("cohort", type=Path)
    known.add_argument("placements", type=Path)
    commands.add_parser("table").add_argument("results", type=Path, nargs="+")
    asked = words.parse_args()
    if asked.command == "run":
        run(asked)
    elif asked.command == "placed":
        placed(asked.cohort, asked.placements)
    else:
        table(lines_of(asked.results))


def run(asked: argparse.Namespace) -> None:
    cohort, results = asked.cohort, asked.results
    done = (
        {(r["cohort"], r["specimen"], r["slide"], r["way"]) for r in lines_of([results])} if results.exists() else set()
    )
    specimens = _specimens(cohort)
    for index, specimen in enumerate(specimens):
        if asked.specimens and specimen["name"] not in asked.specimens:
            continue
        wanted = [
            (slide, way)
            for slide in specimen["slides"][: asked.slides]
            for way in asked.ways
            if (cohort.name, specimen["name"], slide["name"], way) not in done
        ]
        if not wanted:
            continue
        own = read_target(read_volume(cohort / specimen["ct"]))
        other = read_target(read_volume(cohort / specimens[(index + 1) % len(specimens)]["ct"]))
        for slide, way in wanted:
            row = {"cohort": cohort.name, "specimen": specimen["name"], "material": specimen["material"]}
            row |= {"slide": slide["name"], "way": way, "voxel_um": own.grid.spacing_um[1]}
            keep = asked.placements / f"{specimen['name']}_{slide['name']}.placement.json" if asked.placements else None
            row |= _one(cohort, slide, way, other if way == "other" else own, keep if way == "none" else None)
            with results.open("a") as file:
                file.write(json.dumps(row) + "\n")
            shown = ("tre_um", "tre90_um", "rigid_um", "angle_deg", "detail", "margin", "disagreement_um")
            numbers = " ".join(f"{key} {row[key]:.2f}" for key in shown if key in row)
            print(row["specimen"], row["slide"], row["material"], way, numbers, row.get("fault") or "", flush=True)


def placed(cohort: Path, placements: Path) -> None:
    """How far placements that `tomostain register` wrote lie from the truth, all and those not marked CHECK BY EYE."""
    errors, expected, sure = [], [], []
    for specimen in _specimens(cohort):
        target = read_target(read_volume(cohort / specimen["ct"]))
        for slide in specimen["slides"]:
            file = placements / f"{specimen['name']}_{slide['name']}.placement.json"
            if not file.is_file():
                continue
            found, truth = Placement.load(file), Placement.load(cohort / slide["placement"])
            damage = np.asarray(Image.open(cohort / slide["damage"])) > 0
            errors.append(_errors(truth, damage, target, found.slide_to_volume_um, found.slide_to_volume_um)["tre_um"])
            expected.append(found.expected_tre_um)
            sure.append(not found.notes["check"])
    for name, chosen in (("all", np.ones(len(sure), bool)), ("not to be checked", np.asarray(sure))):
        tre = np.asarray(errors)[chosen]
        ratio = np.asarray(expected, dtype=float)[chosen] / tre
        print(
            f"{name}: {len(tre)} slides, TRE median {np.median(tre):.1f}, 90th percentile "
            f"{np.percentile(tre, 90):.1f}, largest {tre.max():.1f} um; expected over true {np.median(ratio):.2f}, "
            f"{np.mean((ratio >= 0.5) & (ratio <= 2)):.0%} within 0.5 to 2, {np.mean(ratio >= 0.5):.0%} at least 0.5"
        )


def _specimens(cohort: Path) -> list[dict[str, Any]]:
    """The specimens of a cohort; of one that is still being made, those that are whole."""
    if (cohort / "cohort.json").exists():
        found: list[dict[str, Any]] = json.loads((cohort / "cohort.json").read_text())["specimens"]
        return found
    specimens = []
    for file in sorted(cohort.glob("*/truth.json")):
        truth, name = json.loads(file.read_text()), file.parent.name
        slides = [s | {key: f"{name}/{s[key]}" for key in ("slide", "placement", "damage")} for s in truth["slides"]]
        material = truth["made_from"]["anatomy"]["material"]
        specimens.append({"name": name, "material": material, "ct": f"{name}/ct.ome.zarr", "slides": slides})
    return specimens


def _one(cohort: Path, slide: dict[str, Any], way: str, target: Target, keep: Path | None) -> dict[str, Any]:
    truth = Placement.load(cohort / slide["placement"])
    damage = np.asarray(Image.open(cohort / slide["damage"])) > 0
    start, processor = time.perf_counter(), time.process_time()
    stained = read_stained(read_slide(cohort / slide["slide"]), min(target.grid.spacing_um[1:]))
    if way == "nothing":
        stained = _dirt(stained, seed=len(slide["name"]) + sum(map(ord, slide["slide"])))
    rng = np.random.default_rng(sum(map(ord, slide["slide"])))
    prior = _disturbed(pose_of(truth, stained), rng) if way in ("prior", "itk") else None
    if way == "itk":
        assert prior is not None
        found = _itk(target, stained, prior)
        row: dict[str, Any] = {}
        affine, elastic = found
        row |= _errors(truth, damage, target, affine, elastic)
    else:
        try:
            done = align(target, stained, prior=prior)
        except ValueError as error:
            return {"fault": str(error), "probability": 0.0, **_cost(start, processor)}
        row = {name: getattr(done.score, name) for name in (*SCORED, "probability")}
        row |= {"expected_um": done.score.expected_tre_um, "fault": done.score.fault()}
        row |= {"folds": int((done.jacobian <= 0).sum()), "thickness_um": done.thickness_um}
        if way in ("prior", "none"):
            placement = placement_of(done, stained)
            if keep is not None and done.score.fault() is None:
                keep.parent.mkdir(parents=True, exist_ok=True)
                placement.save(keep)

            def rigid(px: Any) -> Any:
                return quality.placed(done.rigid, stained.um_of(px))

            def flat(of: Placement) -> Any:
                pose = pose_of(of, stained)
                return lambda px: pose.to_um(stained.um_of(px))

            row |= _errors(truth, damage, target, rigid, placement.slide_to_volume_um)
            parts = _errors(truth, damage, target, flat(placement), flat(truth))
            row |= {"affine_um": parts["rigid_um"], "best_affine_um": parts["tre_um"]}
            row["true_thickness_um"] = truth.thickness_um
            normal, true = done.fit.pose.normal, pose_of(truth, stained).normal
            row["angle_deg"] = float(np.degrees(np.arccos(np.clip(abs(normal @ true), -1, 1))))
    return row | _cost(start, processor)


def _cost(start: float, processor: float) -> dict[str, float]:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"wall_s": time.perf_counter() - start, "processor_s": time.process_time() - processor, "peak_gib": peak}


def _errors(truth: Placement, damage: Any, target: Target, affine: Any, elastic: Any) -> dict[str, float]:
    """Distances to the truth on undamaged slide pixels that lie in the volume, um."""
    axes = [np.linspace(0.01, 0.99, 40) * (n - 1) for n in truth.slide_shape]
    px = np.round(np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2))
    at = px.astype(int)
    true = truth.slide_to_volume_um(px)
    index = target.grid.index_of(true)
    good = ~damage[at[:, 0], at[:, 1]] & np.all((index >= 0) & (index <= np.asarray(target.grid.shape) - 1), axis=1)
    before = np.linalg.norm(affine(px[good]) - true[good], axis=1)
    after = np.linalg.norm(elastic(px[good]) - true[good], axis=1)
    return {
        "rigid_um": float(np.median(before)),
        "tre_um": float(np.median(after)),
        "tre90_um": float(np.percentile(after, 90)),
    }


def _disturbed(pose: Pose, rng: np.random.Generator) -> Pose:
    turn = Rotation.from_rotvec(np.deg2rad(rng.uniform(-OFF_DEG, OFF_DEG, 3))).as_matrix()
    return Pose(pose.centre_um + rng.uniform(-OFF_UM, OFF_UM, 3), turn @ pose.axes)


def _dirt(like: Stained, *, seed: int) -> Stained:
    """A slide of nothing: patches of random colours as large as tissue."""
    rng = np.random.default_rng(seed)
    noise = sum(
        weight * ndimage.gaussian_filter(rng.standard_normal(like.density.shape), (sigma, sigma, 0)) * sigma
        for weight, sigma in ((1.0, 2.0), (1.0, 8.0), (1.5, 25.0))
    )
    density = np.clip(0.25 + 0.15 * noise, 0, 2).astype(np.float32)
    return dataclasses.replace(like, density=density)


def _itk(target: Target, stained: Stained, start: Pose) -> tuple[Any, Any]:
    """The usual recipe with SimpleITK: affine and elastic maps slide px -> volume um."""
    import SimpleITK as sitk

    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    level = stained.at_spacing(2 * target.grid.spacing_um[1])
    grey = np.repeat(level.density.mean(axis=2)[None], 5, axis=0)
    fixed = sitk.GetImageFromArray(grey.astype(np.float32))
    first, (dy, dx) = level.points_um[0, 0], level.spacing_um
    fixed.SetSpacing((dx, dy, target.grid.spacing_um[0]))
    fixed.SetOrigin((first[1], first[0], -2 * target.grid.spacing_um[0]))
    moving = sitk.GetImageFromArray(target.values)
    moving.SetSpacing(target.grid.spacing_um[::-1])
    moving.SetOrigin(target.grid.origin_um[::-1])
    affine = sitk.AffineTransform(3)
    matrix = np.column_stack([start.axes[:, 1], start.axes[:, 0], start.normal])[::-1]
    affine.SetMatrix(matrix.ravel().tolist())
    affine.SetTranslation(start.centre_um[::-1].tolist())

    def method() -> Any:
        found = sitk.ImageRegistrationMethod()
        found.SetMetricAsMattesMutualInformation(32)
        found.SetMetricSamplingStrategy(found.RANDOM)
        found.SetMetricSamplingPercentage(0.2, 1)
        found.SetInterpolator(sitk.sitkLinear)
        found.SetShrinkFactorsPerLevel([8, 4, 2])
        found.SetSmoothingSigmasPerLevel([40.0, 20.0, 10.0])
        found.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
        return found

    first_step = method()
    first_step.SetOptimizerAsRegularStepGradientDescent(40.0, 0.5, 150, relaxationFactor=0.8)
    first_step.SetOptimizerScalesFromPhysicalShift()
    first_step.SetInitialTransform(affine, inPlace=True)
    first_step.Execute(fixed, moving)
    bend = sitk.BSplineTransformInitializer(fixed, [8, 8, 1], order=3)
    second = method()
    second.SetOptimizerAsLBFGSB(1e-5, 40)
    second.SetMovingInitialTransform(affine)
    second.SetInitialTransform(bend, inPlace=True)
    second.Execute(fixed, moving)

    def through(transforms: list[Any]) -> Any:
        def apply(px: Any) -> Any:
            out = []
            for y, x in stained.um_of(px):
                at = (float(x), float(y), 0.0)
                for transform in transforms:
                    at = transform.TransformPoint(at)
                out.append(at[::-1])
            return np.asarray(out)

        return apply

    return through([affine]), through([bend, affine])


def table(rows: list[dict[str, Any]]) -> None:
    ways = [way for way in WAYS if any(r["way"] == way for r in rows)]
    figures = {way: _figures([r for r in rows if r["way"] == way]) for way in ways if way not in ("other", "nothing")}
    cohorts = sorted({r["cohort"] for r in rows})
    print(f"cohorts: {', '.join(cohorts)}")
    print("| figure | to beat | target | " + " | ".join(figures) + " |")
    print("|---|---|---|" + "---|" * len(figures))
    counts = {way: sum(r["way"] == way for r in rows) for way in figures}
    specimens = {way: len({r["specimen"] for r in rows if r["way"] == way}) for way in figures}
    print(
        "| slides (specimens) | 76 | 52 (16) | " + " | ".join(f"{counts[w]} ({specimens[w]})" for w in figures) + " |"
    )
    for name, beat, wanted in PUBLISHED:
        print(f"| {name} | {beat} | {wanted} | " + " | ".join(figures[w][name] for w in figures) + " |")
    lines = [
        Figure(f"{name}, {way}", figures[way][name], target=wanted) for name, _, wanted in PUBLISHED for way in figures
    ]
    for way, told in (("other", "slides of another specimen"), ("nothing", "slides of nothing")):
        some = [r for r in rows if r["way"] == way]
        if some:
            wrong = sum(_accepted(r) for r in some)
            print(f"{told} accepted: {wrong} of {len(some)} (target <= 2 %)")
            lines.append(Figure(f"{told} accepted", f"{wrong} of {len(some)}", target="2 %"))
    save("registration", lines)


def _figures(rows: list[dict[str, Any]]) -> dict[str, str]:
    voxel = rows[0]["voxel_um"]
    placed = [r for r in rows if "tre_um" in r]
    good = [r for r in placed if r["tre_um"] <= 5 * voxel and r.get("angle_deg", 0) <= 3]
    tre, tre90, rigid = (np.asarray([r[k] for r in placed]) / voxel for k in ("tre_um", "tre90_um", "rigid_um"))
    found = dict.fromkeys((name for name, _, _ in PUBLISHED), "-")
    found |= {
        "within 3 deg and 5 voxels (%)": f"{100 * len(good) / len(rows):.1f}",
        "TRE after affine, median (voxels)": f"{np.median(rigid):.2f}",
        "TRE after elastic, median (voxels)": f"{np.median(tre):.2f}",
        "TRE after elastic, 90th percentile (voxels)": f"{np.median(tre90):.2f}",
        "seconds a slide, median (wall)": f"{np.median([r['wall_s'] for r in rows]):.0f}",
        "seconds a slide, median (processor)": f"{np.median([r['processor_s'] for r in rows]):.0f}",
        "peak memory (GiB)": f"{max(r['peak_gib'] for r in rows):.1f}",
    }
    if any("angle_deg" in r for r in placed):
        ours, best = ([r[k] / voxel for r in placed] for k in ("affine_um", "best_affine_um"))
        expected = [score_of(r).expected_tre_um for r in placed]
        refused = f"{100 * np.mean([not _accepted(r) for r in good]):.1f}" if good else "-"
        thickness = stats.spearmanr([r["thickness_um"] for r in placed], [r["true_thickness_um"] for r in placed])
        found |= {
            "plane orientation error, mean (deg)": f"{np.mean([r['angle_deg'] for r in placed]):.2f}",
            "the same of the elastic placement's affine part": f"{np.median(ours):.2f}",
            "the same of the affine map closest to the truth": f"{np.median(best):.2f}",
            "placements with a fold": str(sum(r["folds"] > 0 for r in placed)),
            "good placements refused (%)": refused,
            "expected against true TRE, rank correlation": f"{stats.spearmanr(expected, tre).statistic:.2f}",
            "found against true thickness, rank correlation": f"{thickness.statistic:.2f}",
        }
    return found


def score_of(row: dict[str, Any]) -> quality.Score:
    return quality.Score(**{name: row[name] for name in SCORED})


def _accepted(row: dict[str, Any]) -> bool:
    return "ratio" in row and score_of(row).fault() is None


def lines_of(files: list[Path]) -> list[dict[str, Any]]:
    return [json.loads(line) for file in files for line in file.read_text().splitlines() if line.strip()]


if __name__ == "__main__":
    main()
