"""Put the published LPIPS weights where tomostain finds them: two downloaded files in, one safetensors file out."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cyclopts import Parameter

from tomostain import runs
from tomostain.scoring.lpips import Lpips, assemble, download, user_folder


@Parameter(name="*")
@dataclass(frozen=True)
class LpipsWeightsRecipe:
    """Which LPIPS, and where from."""

    net: Literal["alex", "squeeze"] = "alex"
    """Network of the metric; `alex` is the one that papers report."""
    download: bool = False
    """Download the two files from torchvision and from the LPIPS authors; without this nothing is downloaded."""


def lpips_weights(
    backbone: Path | None = None,
    heads: Path | None = None,
    out: Path | None = None,
    *,
    recipe: LpipsWeightsRecipe = LpipsWeightsRecipe(),
) -> Path:
    """Turn torchvision's ImageNet weights and the LPIPS authors' heads into the file that `evaluate` reads.

    The result is checked against a known value of the published metric.

    Parameters
    ----------
    backbone
        torchvision's ImageNet weights of the network, a .pth file; not needed with --download.
    heads
        The LPIPS authors' linear heads (v0.1) for the network, a .pth file; not needed with --download.
    out
        Folder for the weights; default: this user's cache folder, where `evaluate` finds them.

    Returns
    -------
    Path
        The file, NET.safetensors.

    Raises
    ------
    ValueError
        Files are missing in the command, damaged, or not the published ones.
    ConnectionError
        An address cannot be reached (``download``).

    Example
    -------
    tomostain lpips-weights alexnet-owt-7be5be79.pth alex.pth
    tomostain lpips-weights --download
    """
    folder = Path(out) if out is not None else user_folder()
    if not recipe.download and (backbone is None or heads is None):
        raise ValueError("pass the two .pth files (ImageNet weights, LPIPS heads), or --download to fetch them")
    with tempfile.TemporaryDirectory() as temporary:
        if backbone is None or heads is None:
            backbone, heads = download(recipe.net, Path(temporary))
        made = assemble(backbone, heads, Path(temporary) / f"{recipe.net}.safetensors", net=recipe.net)
        Lpips.load(recipe.net, made.parent)
        file = folder / made.name
        with runs.output(file, "lpips-weights", recipe=recipe, inputs=[backbone, heads]):
            assemble(backbone, heads, file, net=recipe.net)
    return file
