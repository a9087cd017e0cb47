"""Patches for each step, drawn ahead of it by helper threads."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

from lightning_fabric import Fabric

from tomostain.learning.methods import Method
from tomostain.learning.patches import Patch, PatchDataset
from tomostain.learning.recipe import Settled


class Feed:
    """Patches for each step, drawn some steps ahead: (the CT's, the stain's), the same where pairs are used."""

    def __init__(
        self, dataset: PatchDataset, helpers: ThreadPoolExecutor, recipe: Settled, method: Method, fabric: Fabric
    ) -> None:
        self.dataset, self.helpers, self.recipe, self.paired, self.fabric = (
            dataset,
            helpers,
            recipe,
            method.paired,
            fabric,
        )
        self.ready: dict[int, Future[tuple[Patch, Patch]]] = {}

    def __call__(self, step: int) -> tuple[Patch, Patch]:
        for ahead in range(step, min(step + 1 + self.recipe.workers, self.recipe.steps)):
            if ahead not in self.ready:
                self.ready[ahead] = self.helpers.submit(self._draw, ahead)
        here, there = self.ready.pop(step).result()
        moved = here.to(self.fabric.device)
        return moved, moved if there is here else there.to(self.fabric.device)

    def _draw(self, step: int) -> tuple[Patch, Patch]:
        size, rank, ranks = self.recipe.batch, self.fabric.global_rank, self.fabric.world_size
        if self.paired:
            patch = self.dataset.batch(step, size, rank=rank, ranks=ranks)
            return patch, patch
        here, there = (self.dataset.batch(2 * step + i, size, rank=rank, ranks=ranks) for i in range(2))
        return here, there
