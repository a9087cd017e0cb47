"""Draw the README's picture from a finished demo: CT, virtual stain, true section and their difference.

python benchmarks/demo_picture.py DEMO OUT.png [PAIR ...]
"""

import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
from PIL import Image

from tomostain.pairs.pair import load_pair, pairs_in

mpl.use("Agg")
from matplotlib import pyplot as plt


def main(demo: Path, out: Path, names: list[str]) -> int:
    predictions = demo / "evaluation" / "predictions"
    held = [path for path in pairs_in(demo / "pairs") if list(predictions.glob(f"{load_pair(path).name}.*"))]
    pairs = [pair for pair in map(load_pair, held) if not names or pair.name in names][:3]
    figure, axes = plt.subplots(len(pairs), 4, figsize=(10, 2.6 * len(pairs)), squeeze=False, constrained_layout=True)
    for row, pair in zip(axes, pairs, strict=True):
        painted = np.asarray(Image.open(predictions / f"{pair.name}.stainer.png"))[..., :3]
        seen = pair.weight > 0
        error = np.abs(painted.astype(float) - pair.stain).mean(axis=-1)
        white = np.full_like(painted, 255)
        low, high = np.percentile(pair.central_ct[seen], (0.5, 97))
        row[0].imshow(np.where(seen, pair.central_ct, np.nan), cmap="gray", vmin=low, vmax=high)
        row[1].imshow(np.where(seen[..., None], painted, white))
        row[2].imshow(np.where(seen[..., None], pair.stain, white))
        shown = row[3].imshow(np.where(seen, error, np.nan), cmap="magma", vmin=0, vmax=100)
        row[0].set_ylabel(pair.name)
        bar_px = 200 / pair.grid.spacing_um[1]
        row[0].plot([5, 5 + bar_px], [seen.shape[0] - 4] * 2, color="black", lw=2)
        row[0].text(5 + bar_px + 3, seen.shape[0] - 2, "200 µm", fontsize=7)
        figure.colorbar(shown, ax=row[3], shrink=0.8)
    for axis in axes.ravel():
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    for axis, title in zip(axes[0], ("CT", "virtual stain", "true section", "mean difference of 255"), strict=True):
        axis.set_title(title, fontsize=10)
    figure.savefig(out, dpi=110)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]))
