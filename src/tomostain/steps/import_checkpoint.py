"""Step: a checkpoint of another program becomes a stainer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from tomostain import runs
from tomostain._settings import PIXEL_UM, Within, check_numbers
from tomostain.learning.foreign import read_generator
from tomostain.learning.ranges import CTRange
from tomostain.learning.stainer import Stainer
from tomostain.pairs.pair import grey_values_by_specimen, load_pair, pairs_in
from tomostain.pairs.scale import median_anchors
from tomostain.pairs.splits import specimens_of
from tomostain.scoring.baselines import fit_baselines, save_baselines


@Parameter(name="*")
@dataclass(frozen=True)
class ImportRecipe:
    """What a checkpoint does not say of itself."""

    ct_range: Annotated[tuple[float, float] | None, Within(-1e30, 1e30)] = None
    """CT values that became black and white in the pictures that the network was trained on. Required."""
    spacing_um: Annotated[float | None, PIXEL_UM] = None
    """Pixel size of these pictures in um. Required."""
    stain: str = "toluidine blue"
    """Name of the stain."""
    ct_units: str = ""
    """Units of the CT values, such as 1/cm; a label that travels with the stainer."""
    slab: bool = False
    """The network's channels are neighbouring CT planes; otherwise three channels are one grey plane, stored as RGB."""
    pairs: Path | None = None
    """The pairs that it was trained on: their specimens are recorded, so that none is scored by mistake, and
    the colour table is fitted that `evaluate` compares with."""

    def __post_init__(self) -> None:
        check_numbers(self)


def import_checkpoint(checkpoint: Path, out: Path, *, recipe: ImportRecipe = ImportRecipe()) -> Path:
    """Make a stainer of a generator that pytorch-CycleGAN-and-pix2pix, the program of these methods' authors, trained.

    The kind of network, its width, blocks, norm and channels are read from the checkpoint; only weights are read, code
    in it is never run. A network with batch norm uses its stored statistics, as that program does with --eval.

    Parameters
    ----------
    checkpoint
        latest_net_G.pth, or of a CycleGAN the generator that goes from CT to stain, mostly latest_net_G_A.pth.
    out
        The stainer: a folder to be written.

    Returns
    -------
    Path
        ``out``.

    Raises
    ------
    FileNotFoundError
        There is no checkpoint.
    ValueError
        It is of another kind, or what it does not say is missing.

    Example
    -------
    tomostain import latest_net_G.pth stainer/ --ct-range 0 2.5 --spacing-um 5 --pairs pairs/
    """
    checkpoint, out = Path(checkpoint), Path(out)
    if recipe.ct_range is None or recipe.spacing_um is None:
        missing = "--ct-range LOW HIGH" if recipe.ct_range is None else "--spacing-um"
        raise ValueError(f"a checkpoint does not say which CT values and pixels it was trained on; pass {missing}")
    with runs.output(out, "import", recipe=recipe, inputs=[checkpoint, recipe.pairs]) as made:
        spec, planes, net = read_generator(checkpoint, repeated=not recipe.slab)
        pairs = [load_pair(file) for file in pairs_in(recipe.pairs)] if recipe.pairs else []
        ct_range = CTRange(*recipe.ct_range, units=recipe.ct_units)
        history: dict[str, Any] = {"imported": checkpoint.name, "steps": None}
        if pairs:
            simulated = [pair for pair in pairs if pair.simulated]
            history |= {"specimens": specimens_of(pairs), "pairs": sorted(pair.name for pair in pairs)}
            history |= {"simulated": specimens_of(simulated)}
        model = Stainer(
            net=net,
            spec=spec,
            ct_range=ct_range,
            stain=recipe.stain,
            um_per_px=recipe.spacing_um,
            planes=planes,
            history=history,
            grey_values=grey_values_by_specimen(pairs),
            anchors=median_anchors(pairs),
        )
        model.save(out)
        if pairs:
            save_baselines(fit_baselines(pairs, ct_range), out)
        args = {name: spec.args[name] for name in ("width", "depth", "norm")}
        made.results |= {"net": spec.name, **args, "planes": planes}
    sizes = ", ".join(f"{name} {value}" for name, value in args.items())
    runs.say(f"{checkpoint.name}: {spec.name} ({sizes}), CT planes: {planes}")
    return out
