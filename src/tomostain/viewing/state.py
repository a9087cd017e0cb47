"""Stores and sections in, the state of neuroglancer and the views of our page out, as plain JSON.

World axes are x, y, z in um (``dimensions`` of 1e-6 m), so positions are the um of every other part of tomostain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tomostain.viewing.sections import Section
from tomostain.viewing.stores import Store

UM = [1e-6, "m"]
HERE = "here:/"
"""Stands in a state for the address of the page, which only the browser knows."""
_VIEW_PX = 450
"""Width of a panel that the specimen should fill."""
_COLOURS = "vec3 c = vec3(toNormalized(getDataValue(0)), toNormalized(getDataValue(1)), toNormalized(getDataValue(2)));"
STAIN_SHADER = f"""#uicontrol float density slider(min=0, max=1, default=0.15)
void main() {{
  {_COLOURS}
  if (VOLUME_RENDERING) {{
    float dye = 1.0 - min(min(c.r, c.g), c.b);
    emitRGBA(vec4(c, dye * dye * density));
  }} else {{
    emitRGB(c);
  }}
}}
"""
"""Colours as they are; in 3D they are the more solid the more dye there is."""
SECTION_SHADER = f"""void main() {{
  {_COLOURS}
  if (c == vec3(0.0)) {{ emitTransparent(); }} else {{ emitRGB(c); }}
}}
"""
CT_SHADER = """#uicontrol invlerp contrast(range=[{low}, {high}])
void main() {{ emitGrayscale(contrast()); }}
"""
MAP_SHADER = """#uicontrol invlerp contrast(range=[{low}, {high}])
void main() {{ emitRGB(colormapCubehelix(contrast())); }}
"""


@dataclass(frozen=True, eq=False)
class Study:
    """What is looked at: a stained volume, its CT, maps by their names, sections."""

    title: str
    stained: Store
    ct: Store | None = None
    maps: dict[str, Store] = field(default_factory=dict)
    sections: Sequence[Section] = ()

    @property
    def stores(self) -> dict[str, Store]:
        """All stores by the name of their layer, CT first."""
        return ({"CT": self.ct} if self.ct else {}) | {"stain": self.stained} | self.maps


def viewer_state(study: Study, *, root: str = HERE) -> dict[str, Any]:
    """The state that neuroglancer starts with, sources below ``root`` (an address that ends with a slash)."""
    grid = study.stained.volume.grid
    middle = [o + (n - 1) / 2 * s for o, n, s in zip(grid.origin_um, grid.shape, grid.spacing_um, strict=True)]
    extent = max(grid.extent_um[1:])
    return {
        "dimensions": {"x": UM, "y": UM, "z": UM},
        "displayDimensions": ["x", "y", "z"],
        "position": middle[::-1],
        "crossSectionScale": extent / _VIEW_PX,
        "projectionScale": 1.6 * max(grid.extent_um),
        "projectionOrientation": [0.42, 0.2, -0.1, 0.88],
        "layers": _layers(study, root),
        "showAxisLines": False,
        "showDefaultAnnotations": False,
        "showSlices": True,
        "crossSectionBackgroundColor": "#202020",
        "layout": side_by_side(study, "xy"),
    }


def side_by_side(study: Study, plane: str) -> dict[str, Any]:
    """The layout of one panel for each store, linked: CT, stain (with the hidden slides), maps."""
    slides = [slide_layer(section) for section in study.sections]
    layers = {name: [name, *(slides if store is study.stained else [])] for name, store in study.stores.items()}
    panels = [{"type": "viewer", "layers": names, "layout": plane} for names in layers.values()]
    return {"type": "row", "children": panels}


def page_facts(study: Study) -> dict[str, Any]:
    """What our page beside neuroglancer knows: names of layers, units of their values, the sections to jump to."""
    values = {
        name: {"slope": store.slope, "intercept": store.intercept, "units": store.units}
        for name, store in study.stores.items()
    }
    slides = [
        {
            "name": section.name,
            "layer": slide_layer(section),
            "position": list(section.centre_um[::-1]),
            "orientation": section.orientation,
            "scale": max(section.plane.shape) * section.plane.spacing_um / _VIEW_PX,
            "text": _said(section),
        }
        for section in study.sections
    ]
    return {
        "title": study.title,
        "values": values,
        "maps": list(study.maps),
        "hasCT": study.ct is not None,
        "slides": slides,
    }


def slide_layer(section: Section) -> str:
    """Name of the layer that shows a slide."""
    return f"slide {section.name}"


def _layers(study: Study, root: str) -> list[dict[str, Any]]:
    layers = []
    for number, (name, store) in enumerate(study.stores.items()):
        source: dict[str, Any] = {
            "url": f"zarr{store.version}://{root}{folder_name(number)}/{store.inside}".rstrip("/") + "/"
        }
        layer: dict[str, Any] = {"type": "image", "name": name, "source": source}
        if store.volume.is_colour:
            layer |= {"shader": STAIN_SHADER, "opacity": 1.0}
            source["transform"] = {"outputDimensions": _with_colours()}
        else:
            low, high = (float(f"{v:.6g}") for v in store.window)
            shader = CT_SHADER if name == "CT" else MAP_SHADER
            layer |= {"shader": shader.format(low=low, high=high), "opacity": 1.0}
        layers.append(layer)
    for number, section in enumerate(study.sections):
        source = {
            "url": f"zarr3://{root}{section_name(number)}/",
            "transform": {"outputDimensions": _with_colours(), "matrix": section.matrix},
        }
        layer = {"type": "image", "name": slide_layer(section), "source": source, "shader": SECTION_SHADER}
        layers.append(layer | {"opacity": 1.0, "visible": False})
    return layers


def folder_name(number: int) -> str:
    """Name in the address of the n-th store's folder."""
    return f"store{number}"


def section_name(number: int) -> str:
    """Name in the address of the n-th section's folder."""
    return f"section{number}"


def _with_colours() -> dict[str, Any]:
    return {"c^": [1, ""], "z": UM, "y": UM, "x": UM}


def _said(section: Section) -> str:
    notes, expected = section.placement.notes, section.placement.expected_tre_um
    parts = [f"depth {float(notes['depth_um']):.0f} um"] if "depth_um" in notes else []
    parts += [f"tilt {float(notes['tilt_deg']):.1f} degrees"] if "tilt_deg" in notes else []
    parts += [f"expected error {expected:.1f} um"] if expected is not None else []
    return ", ".join(parts)
