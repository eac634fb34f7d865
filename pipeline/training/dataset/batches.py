"""Which rows make a batch: buckets and a seed in, row numbers for (step, micro-batch, rank) out."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from framefleet.pipeline.errors import TableError
from framefleet.pipeline.training.dataset.rows import TrainingRows
from framefleet.pipeline.training.settings import TrainSettings
from framefleet.pipeline.training.task import Bucket

_MAX_ROWS = 200_000_000  # in an epoch; each takes 16 bytes
Positions = npt.NDArray[np.int64]


class Batches:
    """A pure function of its arguments: nothing of it needs to be in a checkpoint.

    All rows of a batch are of one bucket. In an epoch each row is used as often as its `repeats` says at most
    (once: then the batches of a step have none in common), and all are as far as full batches and full steps
    go; another epoch, another order, and others are left over.
    """

    def __init__(
        self,
        buckets: Sequence[Bucket],
        *,
        batch_size: int,
        accumulation: int = 1,
        world_size: int = 1,
        seed: int = 0,
        repeats: Sequence[int] | None = None,
    ) -> None:
        """buckets, repeats (unset: 1): of each row. Raises TableError if one step takes more."""
        self._batch_size, self._seed, self._world_size = batch_size, seed, world_size
        self._accumulation = accumulation
        self._groups = _groups(buckets, repeats or [1] * len(buckets))
        self.batches_per_step = accumulation * world_size
        full = sum(len(rows) // batch_size for rows in self._groups.values())
        self.steps_per_epoch = full // self.batches_per_step
        self.rows_per_step = batch_size * self.batches_per_step
        if not self.steps_per_epoch:
            raise self._too_few()
        self._epoch = lru_cache(maxsize=2)(self._shuffled)  # of a large table an epoch takes a second

    @classmethod
    def of(cls, rows: TrainingRows, settings: TrainSettings, *, world_size: int) -> Batches:
        """Return a job's."""
        return cls(
            rows.buckets(),
            batch_size=settings.batch_size,
            accumulation=settings.accumulation,
            world_size=world_size,
            seed=settings.seed,
            repeats=rows.repeats(),
        )

    def rows_of(self, step: int, micro: int, rank: int) -> list[int]:
        """Return the positions of the rows; all numbers from 0."""
        epoch, place = divmod(step, self.steps_per_epoch)
        number = place * self.batches_per_step + micro * self._world_size + rank
        rows: list[int] = self._epoch(epoch)[number].tolist()
        return rows

    def unused(self) -> dict[Bucket, int]:
        """Return the buckets with fewer rows than a batch, which are never trained on, and how many rows."""
        sizes = {bucket: len(rows) for bucket, rows in self._groups.items()}
        return {bucket: count for bucket, count in sizes.items() if count < self._batch_size}

    def _shuffled(self, epoch: int) -> Positions:
        """Return all batches of an epoch, in order: (batch, row in it)."""
        random = np.random.default_rng((self._seed, epoch))
        parts = []
        for bucket in sorted(self._groups):
            rows = random.permutation(self._groups[bucket])
            full = len(rows) // self._batch_size * self._batch_size
            parts.append(rows[:full].reshape(-1, self._batch_size))
        batches: Positions = random.permutation(np.concatenate(parts), axis=0)
        return batches

    def _too_few(self) -> TableError:
        asked = {"batch_size": self._batch_size, "accumulation": self._accumulation}
        words = " x ".join(f"{name} {count}" for name, count in asked.items() if count > 1 or name[0] == "b")
        workers = f" x {self._world_size} workers" if self._world_size > 1 else ""
        sizes = ", ".join(f"{len(rows)} of {bucket}" for bucket, rows in sorted(self._groups.items()))
        buckets = f" ({sizes}; a batch is of one size)" if len(self._groups) > 1 else ""
        return TableError(
            f"one step takes {self.rows_per_step:,} rows ({words}{workers}), "
            f"and there are {sum(map(len, self._groups.values())):,}{buckets}",
            "add rows, or make train.batch_size smaller",
        )


def _groups(buckets: Sequence[Bucket], repeats: Sequence[int]) -> dict[Bucket, Positions]:
    """Return the positions of each bucket's rows, in order, each as often as it is repeated."""
    counts = np.array(repeats, dtype=np.int64)
    if counts.sum() > _MAX_ROWS:
        raise TableError(
            f"an epoch would have {counts.sum():,} rows, and {_MAX_ROWS:,} are the most",
            "lower the table's repeats: their proportions decide",
        )
    groups: dict[Bucket, list[int]] = {}
    for position, bucket in enumerate(buckets):
        groups.setdefault(bucket, []).append(position)
    return {
        bucket: np.repeat(np.array(rows, dtype=np.int64), counts[rows]) for bucket, rows in groups.items()
    }
