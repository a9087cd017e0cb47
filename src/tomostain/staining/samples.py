"""Tiles of the volume itself: to measure backends on, in the run's own shape, and to calibrate int8 with."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from tomostain.images.image import Volume
from tomostain.images.sampling import even_planes
from tomostain.images.tiling import Tile
from tomostain.inference.predictor import Tiles
from tomostain.inference.selftest import Sample
from tomostain.staining.blocks import Block, Plan

MOST_TILES = 8
_TILES_OF_RUN = 50
"""A self-test stains one of so many tiles of the run, at least two and at most ``MOST_TILES``."""
CALIBRATION_PX = 192


def sample_of(ct: Volume, plan: Plan, *, at_least: int = 2) -> Sample:
    """Tiles as the run shows them to the network; fewer of them the fewer the run has."""
    tile = _largest(plan, plan.blocks()[0])
    area = math.prod(part.stop - part.start for part in tile.outer)
    network_px = plan.network_px()
    in_run = network_px / area
    count = max(at_least, min(MOST_TILES, int(in_run / _TILES_OF_RUN)))
    return Sample(take_tiles(ct, plan, count), round(area * plan.stained_px / network_px), in_run)


def calibration_of(ct: Volume, plan: Plan) -> Tiles:
    """Tiles (b, planes, y, x) that depend on volume and region only, not on the tiles of the run."""
    size = (CALIBRATION_PX, CALIBRATION_PX)
    return take_tiles(ct, replace(plan, tile_px=size, halo_px=0, one_shape=False), MOST_TILES)


def take_tiles(ct: Volume, plan: Plan, count: int) -> Tiles:
    """Tiles (b, planes, y, x) float32, evenly spread over the planes, each where its plane varies most."""
    blocks = [block for block in plan.blocks() if block.core[plan.cut.axis].start == 0]
    tiles = [tile for block in blocks for tile in plan.tiles(block)]
    shape = max((_shape(tile) for tile in tiles), key=math.prod)
    tiles = [tile for tile in tiles if _shape(tile) == shape]
    depth = plan.cut.shape[plan.cut.axis]
    found = []
    for index in even_planes(depth, count):
        planes = plan.ct_planes(index)
        window = [slice(None)] * 3
        window[plan.cut.axis] = slice(min(planes), max(planes) + 1)
        slab = np.moveaxis(np.asarray(ct[tuple(window)], np.float32), plan.cut.axis, 0)
        slab = slab[[z - min(planes) for z in planes]]
        tile = max(tiles, key=lambda t: float(slab[len(slab) // 2][t.outer][::4, ::4].std()))
        found.append(slab[(slice(None), *tile.outer)])
    return np.stack(found)


def _largest(plan: Plan, block: Block) -> Tile:
    return max(plan.tiles(block), key=lambda tile: math.prod(_shape(tile)))


def _shape(tile: Tile) -> tuple[int, ...]:
    return tuple(part.stop - part.start for part in tile.outer)
