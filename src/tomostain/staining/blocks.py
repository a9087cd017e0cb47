"""The plan of a staining run: which blocks, each one file of the output, and what memory they take."""

from __future__ import annotations

from dataclasses import dataclass

from tomostain.images.ome_zarr import SHARD_PX, shard_of
from tomostain.images.tiling import Tile, tiles


@dataclass(frozen=True)
class Plan:
    """Blocks of a volume in the order they are stained; each block's core is one shard of the output."""

    shape: tuple[int, int, int]
    block_px: tuple[int, int, int]
    """Extent (z, y, x) of a block: a shard of the output, or a part of one along y and x."""
    halo_px: tuple[int, int, int]
    """What the network sees beyond a block along (z, y, x)."""
    stride_px: int
    blocks: tuple[Tile, ...]

    @property
    def peak_bytes(self) -> int:
        """Predicted peak of the arrays that one block needs: CT with halo (float32), colours, one plane in the net."""
        outer = [n + 2 * h for n, h in zip(self.block_px, self.halo_px, strict=True)]
        z, y, x = self.block_px
        return 2 * 4 * outer[0] * outer[1] * outer[2] + 2 * 3 * z * y * x


def plan_blocks(
    shape: tuple[int, int, int],
    *,
    halo_px: int,
    stride_px: int,
    planes: int,
    tile_px: tuple[int, int] | None = None,
) -> Plan:
    """Cut a volume into blocks for a network that sees ``planes`` planes and ``halo_px`` pixels around each pixel.

    ``tile_px`` (y, x) is the piece of a plane that is in the network at once, by default a whole shard's plane.

    Raises
    ------
    ValueError
        ``tile_px`` is not a multiple of the network's stride, or not positive.
    """
    depth, rows, columns = shard_of(shape, SHARD_PX)
    if tile_px is not None:
        if min(tile_px) < 1:
            raise ValueError(f"a tile needs at least one pixel along each axis, not {tile_px}")
        rows, columns = min(rows, tile_px[0]), min(columns, tile_px[1])
    size, halo = (depth, rows, columns), (planes // 2, halo_px, halo_px)
    cut = tiles(shape, size, halo=halo, align=(1, stride_px, stride_px))
    return Plan(shape, size, halo, stride_px, tuple(cut))
