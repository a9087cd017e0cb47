"""tomostain: virtual staining for 3D X-ray histology.

read volume and slide -> register -> pair -> train -> evaluate -> stain the volume -> see, measure, trust.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_FACE = {
    "make_phantom": "tomostain.steps.phantom:phantom",  # `tomostain.phantom` is the folder of that name
    "inspect": "tomostain.steps.inspect:inspect",
    "convert": "tomostain.steps.convert:convert",
    "register": "tomostain.steps.register:register",
    "pair": "tomostain.steps.pair:pair",
    "train": "tomostain.steps.train:train",
    "evaluate": "tomostain.steps.evaluate:evaluate",
    "stain": "tomostain.steps.stain:stain",
    "report": "tomostain.steps.report:report",
    "demo": "tomostain.steps.demo:demo",
    "Grid": "tomostain.images.geometry:Grid",
    "Placement": "tomostain.images.geometry:Placement",
    "Volume": "tomostain.images.image:Volume",
    "Slide": "tomostain.images.image:Slide",
    "Pair": "tomostain.pairs.pair:Pair",
    "Stainer": "tomostain.learning.stainer:Stainer",
    "read_volume": "tomostain.io.volumes:read_volume",
    "read_slide": "tomostain.io.slides:read_slide",
}
__all__ = ["__version__", *_FACE]


def __getattr__(name: str) -> Any:
    if name not in _FACE:
        raise AttributeError(f"module 'tomostain' has no attribute {name!r}")
    module, attribute = _FACE[name].split(":")
    return getattr(importlib.import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted(__all__)
