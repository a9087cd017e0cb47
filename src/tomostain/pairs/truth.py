"""What is known of a phantom's section: its specimen's stain and label volumes in, both on a pair's plane out."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tomostain.images.resample import colours_on_plane, plane_of
from tomostain.io.volumes import read_volume
from tomostain.pairs.pair import OUTSIDE, Pair


@dataclass(frozen=True)
class TruthFiles:
    """Volumes of a phantom specimen, on the grid of its CT."""

    stain: Path
    """The colour that a perfect section would have at each voxel."""
    tissues: Path
    """The label of each voxel's tissue."""


def with_truth(pair: Pair, files: TruthFiles) -> Pair:
    """The pair with its perfect section and its tissues, cut where the section's middle plane lies.

    The perfect section is nominally thick and dyed, undamaged and without cell nuclei or lamellae. It is the colour of
    the middle plane. Averaged through the thickness of the section it would have a higher PSNR and a worse LPIPS.

    Raises
    ------
    ValueError
        The pair does not say which plane it shows, or a volume cannot be read.
    """
    if pair.plane is None:
        raise ValueError(f"pair {pair.name} does not say where its plane lies, so that its truth cannot be found")
    labels = plane_of(read_volume(files.tissues), pair.plane, order=0)[0]
    tissues = np.where(np.isfinite(labels), labels, OUTSIDE).astype(np.uint8)
    return dataclasses.replace(pair, truth=colours_on_plane(read_volume(files.stain), pair.plane), tissues=tissues)
