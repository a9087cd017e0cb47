"""What a file or folder is where one of our commands wrote it, finished or not, and what to type next."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tomostain import runs
from tomostain._locks import SUFFIX as MARK
from tomostain.images.geometry import Placement
from tomostain.learning.checkpoint import FOLDER as CHECKPOINT
from tomostain.pairs.pair import SUFFIX as PAIR
from tomostain.pairs.pair import load_pair
from tomostain.phantom.manifest import FILE as COHORT
from tomostain.phantom.manifest import read_cohort
from tomostain.scoring.evaluation import SUMMARY, Evaluation

PLACEMENT = ".placement.json"
STAINER = "stainer.json"
_OUTPUTS = ("cohort", "pairs", "stainer", "evaluation", "stained.ome.zarr", "report.html")
"""What a demo's folder holds, in the order in which it is made."""
_SLICES = (".tif", ".tiff")
_LARGEST_JSON_BYTES = 2**24
_KIND_OF_STEP = {
    "phantom": "phantom cohort",
    "convert": "converted image",
    "register": "placement",
    "pair": "pairs",
    "train": "stainer",
    "evaluate": "evaluation",
    "stain": "stained volume",
    "report": "report",
    "demo": "demo",
}

_RESUMED = ("train", "stain")
"""Steps that continue only with --resume."""

Facts = dict[str, Any]


def recognise(path: Path) -> Facts | None:
    """Facts about an output of ours: ``kind``, ``path``, ``what`` (one line), ``finished``, ``next``; None for others.

    A stained volume that is finished is left to the reader of volumes.
    """
    path = Path(path)
    if path.name.endswith(MARK) and path.is_file():
        path = path.with_name(path.name.removesuffix(MARK))
    for suits, describe in _KINDS:
        if suits(path):
            facts = {"kind": "", "path": str(path), "what": "", "finished": True, "next": []} | describe(path)
            return facts | ({} if runs.unfinished(path) is None else _unfinished(path, facts))
    return _unfinished(path, None) if runs.unfinished(path) is not None else None


def _unfinished(path: Path, known: Facts | None) -> Facts:
    about = runs.unfinished(path) or {}
    step = str(about.get("step") or "")
    kind = (known or {}).get("kind") or _KIND_OF_STEP.get(step, "output")
    words = about.get("command")
    again = shlex.join(map(str, words)) if isinstance(words, list) and words else ""
    if step in _RESUMED and again and "--resume" not in again:
        again += " --resume"
    by = f"tomostain {step}" if step else "the command that writes it"
    running = runs.is_running(about)
    now = f"{by} is writing it" if running else f"{by} was interrupted; the same command continues or starts again"
    facts: Facts = {"kind": kind, "path": str(path), "what": f"unfinished {kind}: {now}", "finished": False}
    return facts | {"next": [again] if again and not running else list((known or {}).get("next", [])) * (not running)}


def _placement(path: Path) -> Facts:
    placement = Placement.load(path)
    rows, columns = placement.slide_shape
    words = f"where a slide of {rows} x {columns} px lies in its CT volume"
    if placement.expected_tre_um is not None:
        words += f"; expected error {placement.expected_tre_um:.1f} um"
    volume, slide = _inputs(path)[:2] if _inputs(path)[1:] else ("VOLUME", "SLIDE")
    name = path.name.removesuffix(PLACEMENT)
    command = f"tomostain pair {volume} {slide} {_quoted(name + PAIR)} --placement {_quoted(path)} --specimen NAME"
    return {"kind": "placement", "what": words, "notes": _notes(placement), "next": [command]}


def _notes(placement: Placement) -> list[str]:
    found = {key: placement.notes.get(key) for key in ("depth_um", "tilt_deg", "mirrored", "probability")}
    return [f"{key} {_short(value)}" for key, value in found.items() if value is not None]


def _pair(path: Path) -> Facts:
    pair = load_pair(path)
    share, confidence = float(np.mean(pair.mask)), float(pair.confidence[pair.mask].mean())
    return {
        "kind": "pair",
        "what": f"CT and {pair.stain_name} stain of specimen {pair.specimen} on one grid",
        "specimen": pair.specimen,
        "stain": pair.stain_name,
        "simulated": ", ".join(pair.simulated) or None,
        "shape": list(pair.ct.shape),
        "dtype": pair.ct.dtype.name,
        "pixel_um": list(pair.grid.spacing_um),
        "share_in_mask": share,
        "mean_confidence": confidence,
        "notes": list(pair.notes.get("slide", ())),
        "next": [f"tomostain train {_quoted(path.parent)} stainer/ --hold-out SPECIMEN"],
    }


def _pairs(path: Path) -> Facts:
    files = sorted(path.glob(f"*{PAIR}"))
    whole, broken = [], []
    for file in files:
        try:
            whole.append(load_pair(file))
        except ValueError:
            broken.append(file.name)
    specimens = sorted({pair.specimen for pair in whole})
    stains = sorted({pair.stain_name for pair in whole})
    words = f"{_count(len(whole), 'pair')} of {_count(len(specimens), 'specimen')} ({', '.join(specimens)})"
    words += f", stained with {', '.join(stains)}"
    simulated = sum(bool(pair.simulated) for pair in whole)
    words += f"; {simulated} simulated (phantom)" if simulated else ""
    last = " ".join(_quoted(name) for name in specimens[-1:]) or "SPECIMEN"
    facts: Facts = {"kind": "pairs", "what": words, "specimens": specimens}
    facts["notes"] = [f"cannot be read: {', '.join(broken)}"] if broken else []
    return facts | {"next": [f"tomostain train {_quoted(path)} stainer/ --hold-out {last}"]}


def _stainer(path: Path) -> Facts:
    about = _json(path / STAINER)
    history: dict[str, Any] = about["history"] if isinstance(about.get("history"), dict) else {}
    specimens = [str(name) for name in history.get("specimens") or []]
    finished = runs.is_complete(path)
    words = f"network that predicts {about.get('stain')} at {_short(about.get('um_per_px'))} um per pixel"
    words += f", trained on {', '.join(specimens)}" if specimens else ""
    return {
        "kind": "stainer",
        "what": words,
        "finished": finished,
        "stain": about.get("stain"),
        "pixel_um": about.get("um_per_px"),
        "simulated": ", ".join(str(name) for name in history.get("simulated") or []) or None,
        "next": [
            f"tomostain evaluate {_quoted(path)} {(_inputs(path) or ['PAIRS'])[0]} evaluation/",
            f"tomostain stain {_quoted(path)} VOLUME stained.ome.zarr",
        ],
    }


def _training(path: Path) -> Facts:
    pairs = (_inputs(path) or ["PAIRS"])[0]
    return {
        "kind": "stainer",
        "what": "unfinished stainer: its training was interrupted and left checkpoints",
        "finished": False,
        "next": [f"tomostain train {pairs} {_quoted(path)} --resume"],
    }


def _evaluation(path: Path) -> Facts:
    found = Evaluation.load(path)
    stainer, pairs = _inputs(path)[:2] if _inputs(path)[1:] else ("STAINER", "PAIRS")
    command = f"tomostain report report.html --stainer {stainer} --evaluation {_quoted(path)} --pairs {pairs}"
    pairs_of = f"{_count(found.summary['pairs'], 'section')} of {_count(found.summary['specimens'], 'specimen')}"
    return {"kind": "evaluation", "what": f"scores of {pairs_of}", "verdict": found.verdict, "next": [command]}


def _cohort(path: Path) -> Facts:
    specimens = read_cohort(path)["specimens"]
    materials = sorted({str(specimen["material"]) for specimen in specimens})
    slides = sum(len(specimen["slides"]) for specimen in specimens)
    words = f"{_count(len(specimens), 'simulated specimen')} ({', '.join(materials)}) with {_count(slides, 'slide')}"
    return {"kind": "phantom cohort", "what": words, "next": [f"tomostain pair {_quoted(path)} pairs/"]}


def _demo(path: Path) -> Facts:
    done = [name for name in _OUTPUTS if runs.is_complete(path / name)]
    finished = len(done) == len(_OUTPUTS)
    words = "the whole story on simulated specimens; open report.html" if finished else f"finished: {', '.join(done)}"
    following = f"tomostain demo {_quoted(path)}"
    page = f"tomostain inspect {_quoted(path / 'evaluation')}"
    return {"kind": "demo", "what": words, "finished": finished, "next": [page if finished else following]}


def _page(path: Path) -> Facts:
    finished = runs.is_complete(path)
    verdict = str(runs.read_record(path)["results"].get("verdict") or "") if finished else ""
    return {"kind": "report", "what": "page for a browser", "finished": finished, "verdict": verdict or None}


def _result(path: Path) -> Facts:
    record = runs.read_record(path)
    return {
        "kind": f"result of tomostain {record['step']}",
        "what": f"written by tomostain {record['step']}",
        "when": record["finished"],
        "command": " ".join(str(word) for word in record["command"]),
        "inputs": [one["path"] for one in record["inputs"]],
        "results": record["results"],
    }


def _is_placement(path: Path) -> bool:
    return path.is_file() and (
        path.name.endswith(PLACEMENT) or (path.suffix == ".json" and _json(path).get("format") == "tomostain-placement")
    )


def _is_demo(path: Path) -> bool:
    return path.is_dir() and ((path / "cohort").is_dir() and ((path / "pairs").is_dir() or _step(path) == "demo"))


def _is_page(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() in (".html", ".htm")


def _is_result(path: Path) -> bool:
    """A folder with a record that is not an image: slices and Zarr are volumes, also those of tomostain."""
    if path.name.endswith(".zarr") or not (path / "run.json").is_file():
        return False
    return not any(file.suffix.lower() in _SLICES for file in path.iterdir())


_KINDS: Sequence[tuple[Callable[[Path], bool], Callable[[Path], Facts]]] = (
    (_is_placement, _placement),
    (lambda path: path.name.endswith(PAIR) and path.is_dir(), _pair),
    (lambda path: (path / STAINER).is_file(), _stainer),
    (lambda path: (path / CHECKPOINT).is_dir(), _training),
    (lambda path: (path / SUMMARY).is_file(), _evaluation),
    (lambda path: (path / COHORT).is_file(), _cohort),
    (_is_demo, _demo),
    (lambda path: path.is_dir() and any(path.glob(f"*{PAIR}")), _pairs),
    (_is_page, _page),
    (_is_result, _result),
)
"""How an output is recognised and described; the first that fits is taken."""


def _step(path: Path) -> str:
    about = runs.unfinished(path) or (runs.read_record(path) if runs.is_complete(path) else {})
    return str(about.get("step") or "")


def _inputs(path: Path) -> list[str]:
    """The inputs that an output was made of, ready to be typed."""
    try:
        return [_quoted(one["path"]) for one in runs.read_record(path)["inputs"]]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return []


def _json(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _LARGEST_JSON_BYTES:
            return {}
        text = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return text if isinstance(text, dict) else {}


def _quoted(path: Path | str) -> str:
    return shlex.quote(str(path))


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'s' * (number != 1)}"


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
