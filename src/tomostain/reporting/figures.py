"""Figures of a report as inline SVG: the same data gives the same bytes, and text takes the page's font and colour."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

INK = "#010203"
"""Stands for the page's own text colour; replaced by ``currentColor`` in the SVG."""

METHOD_COLOURS = {
    "stainer": "#4457c0",
    "colour table": "#c27a2c",
    "mean colour": "#8b8680",
    "perfect section": "#3d8f6b",
}
_CYCLE = ("#4457c0", "#c27a2c", "#3d8f6b", "#b0476a", "#7a5bb5", "#8b8680", "#2f94a8", "#a3902f")

_STYLE: Any = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "grid.color": "#8b8680",
    "grid.alpha": 0.25,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
}

Floats = npt.NDArray[np.floating[Any]]


def scores_figure(
    metrics: Sequence[str],
    points: Mapping[str, Mapping[str, Sequence[float]]],
    spread: Mapping[str, Mapping[str, Mapping[str, Any]]],
    names: Mapping[str, str],
    *,
    ceiling: str = "",
) -> str:
    """A panel for each metric: each pair a dot, each method's mean over specimens a bar with its 95 % interval.

    The mean of the method ``ceiling``, where it is among them, is drawn as a dashed line through the panel.

    ``points[method][metric]`` are the pairs' values, ``spread[method][metric]`` has "mean", "low", "high".
    """
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(3.5 * len(metrics), 0.45 * len(spread) + 0.85), layout="constrained")
        panels = figure.subplots(1, len(metrics), sharey=True, squeeze=False)[0]
        for panel, metric in zip(panels, metrics, strict=True):
            for row, (method, values) in enumerate(spread.items()):
                colour = METHOD_COLOURS.get(method, _CYCLE[row % len(_CYCLE)])
                dots = np.asarray(points[method][metric], dtype=np.float64)
                dots = dots[np.isfinite(dots)]
                panel.plot(dots, np.full(dots.size, row - 0.2), "o", ms=3.2, mew=0, color=colour, alpha=0.45)
                mean, low, high = (values[metric][key] for key in ("mean", "low", "high"))
                if mean is None:
                    continue
                if low is not None:
                    panel.plot([low, high], [row + 0.12] * 2, color=colour, lw=2.4, solid_capstyle="round")
                panel.plot([mean], [row + 0.12], "o", ms=7, color=colour, mec="white", mew=1)
            top = spread[ceiling][metric]["mean"] if ceiling in spread else None
            if top is not None:
                panel.axvline(top, color=METHOD_COLOURS.get(ceiling, _CYCLE[-1]), lw=1.2, ls="--", zorder=0)
            panel.set_title(names[metric])
            panel.grid(axis="x")
            panel.tick_params(axis="y", length=0)
            panel.set_yticks(range(len(spread)), list(spread))
            panel.set_ylim(len(spread) - 0.5, -0.6)
            panel.xaxis.set_major_locator(MaxNLocator(5))
            panel.spines["left"].set_visible(False)
        return _svg(figure, "scores")


def curves_figure(curves: Mapping[str, Sequence[float]], *, against: str = "step") -> str:
    """Small panels of every quantity that training wrote down (NaN where it did not), raw and as a running mean.

    Columns that begin with ``val_``, taken on held-out specimens, come first; the time that a step took is left out.
    """
    steps = np.asarray(curves[against], dtype=np.float64)
    shown = [name for name in curves if name != against and not name.endswith("s_per_step")]
    shown = [name for name in shown if np.isfinite(np.asarray(curves[name], float)).any()]
    shown.sort(key=lambda name: not name.startswith("val_"))
    columns = min(4, max(1, len(shown)))
    rows = -(-len(shown) // columns)
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(2.75 * columns, 1.75 * rows), layout="constrained")
        panels: list[Axes] = list(figure.subplots(rows, columns, squeeze=False).ravel())
        for panel, name in zip(panels, shown, strict=False):
            values = np.asarray(curves[name], dtype=np.float64)
            there = np.isfinite(values)
            if there.sum() < 20:
                panel.plot(steps[there], values[there], "o-", ms=2.6, color=_CYCLE[0], lw=1.5)
            else:
                panel.plot(steps[there], values[there], color=_CYCLE[0], lw=0.7, alpha=0.3)
                panel.plot(steps[there], _running_mean(values[there]), color=_CYCLE[0], lw=1.5)
            held_out = name.startswith("val_")
            panel.set_title(f"held out: {name[4:].upper()}" if held_out else name.replace("_", " "))
            panel.set_xlim(0, steps.max())
            panel.grid()
            panel.xaxis.set_major_locator(MaxNLocator(3, integer=True))
            panel.yaxis.set_major_locator(MaxNLocator(4))
        for panel in panels[len(shown) :]:
            panel.set_axis_off()
        for panel in panels[max(0, len(shown) - columns) : len(shown)]:
            panel.set_xlabel(against)
        return _svg(figure, "curves")


def intensity_figure(
    centres: Floats,
    share: Floats,
    errors: Mapping[str, Floats],
    colours: npt.NDArray[np.uint8],
    *,
    unit: str = "",
    threshold: float | None = None,
) -> str:
    """Mean colour difference against CT intensity, above the pixels' histogram and the colour table itself.

    ``colours`` (n, 3) uint8 are the table's colours at ``centres``.
    """
    width = float(centres[1] - centres[0])
    ends = (float(centres[0]) - width / 2, float(centres[-1]) + width / 2)
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(7.2, 3.6), layout="constrained")
        top, middle, strip = figure.subplots(3, 1, sharex=True, height_ratios=(6, 2, 0.8))
        for method, values in errors.items():
            colour = METHOD_COLOURS.get(method, _CYCLE[-1])
            top.plot(centres, values, "o-", ms=2.6, lw=1.5, color=colour, label=method)
        if threshold is not None:
            top.axhline(threshold, color=INK, lw=0.6, ls=(0, (3, 3)))
            top.annotate(
                "just noticeable", (ends[1], threshold), (-2, 2), textcoords="offset points", ha="right", size=7.5
            )
        top.set_ylim(bottom=0)
        top.set_ylabel("mean colour\ndifference ΔE")
        top.grid(axis="y")
        top.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), borderpad=0, ncols=len(errors))
        middle.bar(centres, 100 * share, width=width * 0.92, color="#8b8680")
        middle.set_ylabel("pixels, %")
        strip.imshow(colours[None], aspect="auto", extent=(*ends, 0.0, 1.0), interpolation="nearest")
        strip.set_yticks([])
        strip.set_ylabel("table", rotation=0, ha="right", va="center")
        strip.set_xlabel(f"CT value{f' ({unit})' if unit else ''}")
        strip.set_xlim(*ends)
        return _svg(figure, "intensity")


def _running_mean(values: Floats) -> Floats:
    """Mean over a window of a twentieth of the values, shrinking at the ends."""
    half = max(1, len(values) // 40)
    total = np.concatenate([[0.0], np.cumsum(values)])
    at = np.arange(len(values))
    first, last = np.maximum(at - half, 0), np.minimum(at + half + 1, len(values))
    return np.asarray((total[last] - total[first]) / (last - first))


def _svg(figure: Figure, name: str) -> str:
    """The figure as an <svg> element whose ids begin with ``name``, so that many share a page."""
    with mpl.rc_context({"svg.hashsalt": f"tomostain-{name}"}):
        file = io.StringIO()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'(xlink:href="#|url\(#)', rf"\g<1>{name}-", text)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    return text.replace(INK, "currentColor").strip()
