"""tomostain: virtual staining for 3D X-ray histology.

read volume and slide -> register -> pair -> train -> evaluate -> stain the volume -> view, measure, check.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_STEPS = {
    "make_phantom": "tomostain.steps.phantom:phantom",  # `tomostain.phantom` is the folder of that name
    "inspect": "tomostain.steps.inspect:inspect",
    "convert": "tomostain.steps.convert:convert",
    "make_table": "tomostain.steps.table:table",
    "register": "tomostain.steps.register:register",
    "landmarks": "tomostain.steps.landmarks:landmarks",
    "pair": "tomostain.steps.pair:pair",
    "train": "tomostain.steps.train:train",
    "import_checkpoint": "tomostain.steps.import_checkpoint:import_checkpoint",
    "evaluate": "tomostain.steps.evaluate:evaluate",
    "run_experiment": "tomostain.steps.experiment:experiment",  # as above
    "stain": "tomostain.steps.stain:stain",
    "report": "tomostain.steps.report:report",
    "view": "tomostain.steps.view:view",
    "demo": "tomostain.steps.demo:demo",
}
"""Called with settings as plain keywords: ``tomostain.register(ct, slide, out, spacing_um=5)``."""
_FACE = {
    "PhantomRecipe": "tomostain.steps.phantom:PhantomRecipe",
    "ConvertRecipe": "tomostain.steps.convert:ConvertRecipe",
    "RegisterRecipe": "tomostain.steps.register:RegisterRecipe",
    "LandmarksRecipe": "tomostain.steps.landmarks:LandmarksRecipe",
    "PairRecipe": "tomostain.pairs.recipe:PairRecipe",
    "TrainRecipe": "tomostain.learning.recipe:TrainRecipe",
    "ImportRecipe": "tomostain.steps.import_checkpoint:ImportRecipe",
    "EvaluateRecipe": "tomostain.steps.evaluate:EvaluateRecipe",
    "ExperimentRecipe": "tomostain.steps.experiment:ExperimentRecipe",
    "StainRecipe": "tomostain.steps.stain:StainRecipe",
    "ReportRecipe": "tomostain.steps.report:ReportRecipe",
    "ViewRecipe": "tomostain.steps.view:ViewRecipe",
    "DemoRecipe": "tomostain.steps.demo:DemoRecipe",
    "TableRecipe": "tomostain.steps.table:TableRecipe",
    "Grid": "tomostain.images.geometry:Grid",
    "Placement": "tomostain.images.geometry:Placement",
    "Volume": "tomostain.images.image:Volume",
    "Slide": "tomostain.images.image:Slide",
    "Pair": "tomostain.pairs.pair:Pair",
    "Stainer": "tomostain.learning.stainer:Stainer",
    "read_volume": "tomostain.io.volumes:read_volume",
    "read_slide": "tomostain.io.slides:read_slide",
}
__all__ = ["__version__", *_FACE, *_STEPS]


def __getattr__(name: str) -> Any:
    target = _FACE.get(name) or _STEPS.get(name)
    if target is None:
        raise AttributeError(f"module 'tomostain' has no attribute {name!r}")
    module, attribute = target.split(":")
    found = getattr(importlib.import_module(module), attribute)
    if name in _STEPS:
        found = importlib.import_module("tomostain._keywords").with_keywords(found)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted(__all__)
