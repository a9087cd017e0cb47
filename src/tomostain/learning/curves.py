"""What a training looks like while it runs: curves.csv, sample pictures, and progress.png with both."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from matplotlib import colormaps
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from tomostain.learning.patches import Patch
from tomostain.learning.ranges import RGBRange
from tomostain.runs import whole, write_text_atomically

FILE, PROGRESS, BOARD = "curves.csv", "progress.png", "tensorboard"


class Curves:
    """curves.csv, one line each few steps; blank where a value was not taken.

    Opening it for ``step`` drops the lines of later steps, which a resumed training writes again. With ``tensorboard``
    the same values and the sample pictures are written for TensorBoard, into a folder beside it.
    """

    def __init__(self, path: Path, columns: Sequence[str], *, step: int = 0, tensorboard: bool = False) -> None:
        self.board: Any = None
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self.board = SummaryWriter(path.parent / BOARD, purge_step=step + 1)
        self.path, self.columns = path, ("step", *columns)
        kept: list[dict[str, str]] = []
        if step and path.is_file():
            with path.open(newline="", encoding="utf-8") as file:
                # a line cut short by a kill has no number in its first column, or belongs to a later step
                kept = [
                    row for row in csv.DictReader(file) if (row["step"] or "").isdigit() and int(row["step"]) <= step
                ]
        text = io.StringIO()
        table = csv.DictWriter(text, self.columns, restval="", extrasaction="ignore", lineterminator="\n")
        table.writeheader()
        table.writerows(kept)
        write_text_atomically(path, text.getvalue())

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Append a line."""
        row = [str(step), *(f"{values[name]:.6g}" if name in values else "" for name in self.columns[1:])]
        with self.path.open("a", newline="", encoding="utf-8") as file:
            file.write(",".join(row) + "\n")
        if self.board:
            for name, value in values.items():
                self.board.add_scalar(name, value, step)
            self.board.flush()

    def show(self, step: int, picture: npt.NDArray[np.uint8]) -> None:
        """Give TensorBoard a sample picture, (y, x, 3)."""
        if self.board:
            self.board.add_image("CT, virtual stain, true stain", picture, step, dataformats="HWC")
            self.board.flush()


class Tally:
    """The losses of the steps since the last line of the curves."""

    def __init__(self, names: Sequence[str], steps: Sequence[Mapping[str, float]] = ()) -> None:
        self.names = list(names)
        self.steps: list[Mapping[str, float | Tensor]] = list(steps)

    def add(self, terms: Mapping[str, Tensor]) -> None:
        """One step's losses; a loss that was not due is left out."""
        self.steps.append({name: term.detach() for name, term in terms.items()})

    def means(self, done: int, out: Path) -> dict[str, float]:
        """Mean of each loss over the steps up to ``done``.

        Raises
        ------
        ValueError
            One is not finite.
        """
        plain = self.plain()["steps"]
        for step, terms in enumerate(plain, start=done - len(plain) + 1):
            for name, value in terms.items():
                if not math.isfinite(value):
                    raise ValueError(
                        f"loss {name} became {value} in step {step}; the last good checkpoint, if any, stays in "
                        f"{out / 'checkpoint'}. Train again with a lower --lr, or with less weight on this loss"
                    )
        taken = {name: [terms[name] for terms in plain if name in terms] for name in self.names}
        return {name: sum(values) / len(values) for name, values in taken.items() if values}

    def clear(self) -> None:
        """Begin again."""
        self.steps = []

    def plain(self) -> dict[str, Any]:
        """Plain numbers, for ``Tally(**...)``."""
        return {"names": self.names, "steps": [{n: float(v) for n, v in step.items()} for step in self.steps]}


def save_samples(path: Path, patches: Patch, stained: Tensor) -> npt.NDArray[np.uint8]:
    """Write a picture, and return it: a row for each patch, of CT, virtual stain and true stain (masked pixels grey).

    ``stained`` is (b, 3, y, x) in [-1, 1]; CT is shown with its range as black to white. In the folder above,
    progress.png then shows curves.csv and the first row of this picture.
    """
    ct = patches.central_ct.clamp(-1.0, 1.0).expand(-1, 3, -1, -1)
    rows = torch.cat([ct, stained, patches.stain], dim=3)
    picture = RGBRange.from_unit(torch.cat(list(rows), dim=1).permute(1, 2, 0).numpy())
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as part:
        Image.fromarray(picture).save(part, format="PNG")
    with (path.parents[1] / FILE).open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    figure = progress_figure(
        lines, picture[: rows.shape[2]], f"{path.stem.replace('_', ' ')}: CT, virtual and true stain"
    )
    with whole(path.parents[1] / PROGRESS) as part:
        figure.savefig(part, format="png", dpi=110)
    return picture


def progress_figure(lines: Sequence[Mapping[str, str]], sample: npt.NDArray[np.uint8], title: str) -> Figure:
    """Losses (logarithmic) and scores on held-out patches from the lines of curves.csv, above a sample (y, x, 3)."""
    figure = Figure(figsize=(11, 7), layout="constrained")
    names = [one for one in lines[0] if one not in ("step", "lr") and not one.endswith("s_per_step")] if lines else []
    scores = [name for name in names if name.startswith("val_")]
    mosaic: list[Any] = [*(["losses", name] for name in scores or ["none"]), ["sample", "sample"]]
    panels = figure.subplot_mosaic(mosaic, height_ratios=[1.0] * (len(mosaic) - 1) + [len(mosaic) - 1.0])
    panels["losses"].set_prop_cycle(color=colormaps["tab20"](range(20)))
    for name in names:
        taken = [line for line in lines if line[name]]
        steps, values = [int(line["step"]) for line in taken], [float(line[name]) for line in taken]
        panel = panels[name if name in panels else "losses"]
        panel.plot(steps, values, marker="." if len(taken) < 20 else "", label=name)
        panel.set_xlim(left=0)
    panels["losses"].set(title="losses", xlabel="step", yscale="log")
    if panels["losses"].lines:
        panels["losses"].legend(fontsize="small", loc="upper left", bbox_to_anchor=(1.0, 1.0))
    for name in scores:
        panels[name].set_title(f"{name.removeprefix('val_')} of held-out patches")
    if not scores:
        panels["none"].set(title="no specimen is held out", xticks=[], yticks=[])
    picture = panels["sample"]
    picture.imshow(sample, interpolation="nearest")
    picture.set(title=title)
    picture.set_axis_off()
    return figure


def in_short(values: Mapping[str, float], losses: Sequence[str]) -> str:
    """The loss that matters most and the score on held-out specimens, for the progress bar."""
    shown = next((name for name in ("paired", "cycle", *losses) if name in values), None)
    words = [] if shown is None else [f"{shown} {values[shown]:.3f}"]
    if "val_ssim" in values:
        words.append(f"held-out SSIM {values['val_ssim']:.3f}")
    return ", ".join(words)
