"""How much memory a run will take, before it is begun: the program, the network at work, blocks between the stages."""

from __future__ import annotations

import ctypes
import math
import os
import warnings
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from tomostain.io.ome_zarr import SHARD_PX, shard_of
from tomostain.learning.stainer import Stainer
from tomostain.staining.blocks import Cut, Plan, plan_blocks
from tomostain.staining.local import UNDER_WAY

GIB = 2**30
_SLACK = 1.3
"""Memory of the arithmetic libraries beside the tensors: reordered weights, buffers, freed pages."""
_MUCH_CHEAPER = 1.5
"""How much less another tile's halos must cost before a warning says what memory it takes."""
_WRITING_BYTES = 100 * 2**20
"""Encoding a shard and halving one: pieces of 64 x 256 x 256 voxels in linear light, and the shard made of them."""


@dataclass(frozen=True)
class Memory:
    """A prediction in bytes."""

    program: int
    network: int
    blocks: int
    writing: int

    @property
    def total(self) -> int:
        """The predicted peak."""
        return self.program + self.network + self.blocks + self.writing

    def __str__(self) -> str:
        parts = (
            f"{name} {value / GIB:.2f}"
            for name, value in (
                ("program", self.program),
                ("network", self.network),
                ("blocks", self.blocks),
                ("writing", self.writing),
            )
        )
        return f"{self.total / GIB:.2f} GiB ({', '.join(parts)})"


def predict(plan: Plan, network: int, ct_dtype: np.dtype[Any], *, predictors: int = 1, program: int) -> Memory:
    """The peak of a run on this machine; ``network`` is what one predictor takes, in bytes."""
    block = [min(size, n) for size, n in zip(plan.block_px, plan.cut.shape, strict=True)]
    depth = block[plan.cut.axis]
    seen = math.prod(
        min(n, size + 2 * (plan.halo_px + plan.align_px))
        for n, size in zip(plan.plane_shape, (plan.block_px[a] for a in plan.cut.plane_axes), strict=True)
    )
    values = (depth + plan.planes - 1) * seen * ct_dtype.itemsize
    colours = 3 * math.prod(block)
    shard = 3 * math.prod(shard_of(plan.cut.shape, plan.shard_px))
    return Memory(
        program=program,
        network=predictors * int(_SLACK * network),
        blocks=predictors * UNDER_WAY * max(values, colours) + predictors * min(values, colours),
        writing=predictors * (2 * shard + _WRITING_BYTES),
    )


def fit_plan(
    cut: Cut,
    model: Stainer,
    ct_dtype: np.dtype[Any],
    *,
    limit: int,
    tile_px: tuple[int, int] | None = None,
    one_shape: bool = False,
    batch: int = 1,
    predictors: int = 1,
    processes: int = 1,
    advise: bool = True,
) -> tuple[Plan, Memory]:
    """The plan whose halos cost least among those whose predicted peak is within ``limit`` bytes.

    ``tile_px`` (optional) fixes the tile; ``processes``: how many processes share the limit; ``advise``: warn where
    more memory would save much time.

    Raises
    ------
    ValueError
        No plan fits; the message says what the smallest needs.
    """
    give_back_freed()
    sized: list[tuple[Plan, int]] = []
    halo, stride = model.halo_px, model.stride_px
    for shards, tile in _candidates(tile_px, one_shape):
        plan = plan_blocks(
            cut,
            planes=model.planes,
            halo_px=halo,
            align_px=stride,
            tile_px=tile,
            shards=shards,
            one_shape=one_shape,
        )
        shape = tuple(
            model.taken_px(min(n, max(size + 2 * (halo + stride), least)))
            for n, size, least in zip(plan.plane_shape, plan.tile_px, plan.least_px, strict=True)
        )
        sized.append((plan, network_bytes(model.net, model.planes, (shape[0], shape[1]), batch=batch)))
    give_back_freed()
    program = resident_bytes(processes)
    found = [
        (plan, predict(plan, network, ct_dtype, predictors=predictors, program=program)) for plan, network in sized
    ]
    fitting = [(plan, memory) for plan, memory in found if memory.total <= limit]
    if not fitting:
        smallest, needed = min(found, key=lambda pair: pair[1].total)
        raise ValueError(
            f"this run needs {needed} even with tiles of {smallest.tile_px[0]} x {smallest.tile_px[1]} px, and may use "
            f"{limit / GIB:.2f} GiB; pass --memory-gib {needed.total / GIB + 0.05:.1f}"
            + ("" if tile_px is None else ", or a smaller --tile-px")
        )
    best, memory = _cheapest(fitting)
    other, wanted = _cheapest(found)
    cost, possible = (plan.network_px() / plan.stained_px for plan in (best, other))
    if advise and cost > _MUCH_CHEAPER * possible:
        warnings.warn(
            f"halos make this run {cost:.1f} times as long, for lack of memory: with --memory-gib "
            f"{wanted.total / GIB + 0.05:.1f} it would be {possible:.1f} times",
            stacklevel=2,
        )
    return best, memory


def _cheapest(found: Sequence[tuple[Plan, Memory]]) -> tuple[Plan, Memory]:
    return min(found, key=lambda pair: (pair[0].network_px(), pair[1].total))


def _candidates(tile_px: tuple[int, int] | None, one_shape: bool) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Shards to a block, and tiles in it; a fixed tile stays."""
    if tile_px is not None:
        yield (1, 1), tile_px
        return
    wide = SHARD_PX[1]
    if one_shape:
        for rows, columns in ((1, 1), (1, 2), (2, 2), (2, 4), (4, 4)):
            yield (rows, columns), (rows * wide, columns * wide)
        for part in (2, 4, 8):
            yield (1, 1), (wide // part, wide // part)
        return
    for rows, columns in ((4, 4), (2, 4), (2, 2), (1, 4), (1, 2), (1, 1)):
        yield (rows, columns), (rows * wide, columns * wide)
    for part in (2, 4, 8):
        yield (1, 1), (wide // part, wide)
        yield (1, 1), (wide // part, wide // part)


def network_bytes(net: nn.Module, planes: int, shape: tuple[int, int], *, batch: int = 1) -> int:
    """Bytes that a network's tensors take at their peak for tiles of ``shape``, found without computing.

    The network is run on PyTorch's meta device; every tensor is counted from its making to its release.
    """
    device = next(iter(net.state_dict().values())).device
    ledger = _Ledger()
    state = {name: t.to("meta") for name, t in (*net.named_parameters(), *net.named_buffers())}
    image = torch.empty((batch, planes, *shape), device="meta").to(memory_format=torch.channels_last)
    with torch.no_grad(), ledger:
        stained = torch.func.functional_call(net, state, (image,))
    weights = sum(t.numel() * t.element_size() for t in state.values()) if device.type == "cpu" else 0
    buffers = 2 * image.numel() * image.element_size() + 3 * stained.numel() * stained.element_size()
    return int(ledger.peak + buffers + weights)


def resident_bytes(processes: int = 1) -> int:
    """Bytes in memory now of this process, and of so many like it, which share its libraries."""
    try:
        resident, shared = (int(pages) for pages in Path("/proc/self/statm").read_text(encoding="utf-8").split()[1:3])
    except OSError:
        return processes * 512 * 2**20
    return (processes * (resident - shared) + shared) * os.sysconf("SC_PAGE_SIZE")


def give_back_freed() -> None:
    """Return freed memory to the system, so that the process keeps only what it uses; glibc only."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError, TypeError):
        return


def available_bytes() -> int:
    """Bytes that this machine (or the group of processes it confines us to) can still give us."""
    found = []
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
        found += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")]
        most = Path("/sys/fs/cgroup/memory.max").read_text(encoding="utf-8").strip()
        if most != "max":
            found.append(int(most) - int(Path("/sys/fs/cgroup/memory.current").read_text(encoding="utf-8")))
    except (OSError, ValueError):
        pass
    return min(found, default=8 * GIB)


class _Ledger(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of all tensors that are alive while it is on."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = self._now = 0
        self._known: weakref.WeakKeyDictionary[Any, None] = weakref.WeakKeyDictionary()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_flatten(made)[0]:
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                if storage not in self._known:
                    size = storage.nbytes()
                    self._known[storage] = None
                    weakref.finalize(storage, self._release, size)
                    self._now += size
        self.peak = max(self.peak, self._now)
        return made

    def _release(self, size: int) -> None:
        self._now -= size
