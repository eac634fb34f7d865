"""From rows of one renderer to checkpoints, and from another's checkpoints to rows that continue."""

from __future__ import annotations

import logging
from functools import cache

import torch

from framefleet.pipeline.guards.redaction import public_message
from framefleet.pipeline.model.environment import source_fingerprint
from framefleet.pipeline.model.model import Model
from framefleet.pipeline.render.checkpoints.checkpoint import (
    HalfDone,
    Journal,
    RowCheckpoint,
    read_checkpoint,
)
from framefleet.pipeline.render.findings import surroundings
from framefleet.pipeline.render.fused.batcher import RowTask
from framefleet.pipeline.render.fused.batching import Batching
from framefleet.pipeline.render.fused.forwards import StateWatch
from framefleet.pipeline.render.row_queue import RenderRow, seconds_of

log = logging.getLogger(__name__)
_build = cache(source_fingerprint)


class HandOver:
    """Takes over rows that others began, and hands over those under way."""

    def __init__(self, model: Model, batching: Batching, watch: StateWatch) -> None:
        self._model, self._batching, self._watch = model, batching, watch
        self._denoisers = model.denoisers()
        self._told: set[str] = set()

    def journal(self, row: RenderRow) -> Journal:
        """Return the journal of a row that starts: an empty one if its checkpoint cannot be used here."""
        are_bits = self._batching.mode == "exact"
        content, row.checkpoint = row.checkpoint, None
        if content is None:
            return Journal(are_bits=are_bits)
        try:
            checkpoint = content if isinstance(content, RowCheckpoint) else read_checkpoint(content)
            self._check(checkpoint, row)
        except ValueError as error:
            tell_begun_again(row, public_message(error))
            return Journal(are_bits=are_bits)
        row.started_at, row.earlier = checkpoint.started_at, checkpoint.seconds
        row.was_batched = checkpoint.was_batched
        return Journal(checkpoint.made, checkpoint.then, are_bits=are_bits)

    def half_done(self, row: RenderRow, task: RowTask) -> HalfDone:
        """Return a row that is parked at its next call, or at its end."""
        return HalfDone(row.row_id, row.request, self.checkpoint(row, task))

    def checkpoint(self, row: RenderRow, task: RowTask) -> RowCheckpoint | None:
        """Return how far a row has come; None if it has to begin again."""
        obstacle = self._obstacle() or task.journal.obstacle
        if obstacle and obstacle not in self._told:
            self._told.add(obstacle)
            name = type(self._model.pipe).__name__
            log.warning("rows of %s that are in progress start over on other workers: %s", name, obstacle)
        if obstacle or not task.journal.made:
            return None
        then = task.call if task.call and task.call.module in self._denoisers else None
        made, mark = task.journal.until(then, task.draws)
        if (device := self._model.environment["device"]).startswith("cuda"):
            torch.cuda.synchronize(device)  # copies of what was made last may be under way
        return RowCheckpoint(
            row_id=row.row_id,
            model=self._model.digest,
            build=_build(),
            surroundings=surroundings(self._model, self._batching),
            made=made,
            then=mark,
            seconds=seconds_of(task, row),
            started_at=row.started_at,
            was_batched=row.was_batched,
        )

    def _check(self, found: RowCheckpoint, row: RenderRow) -> None:
        """Raise ValueError for a checkpoint of another row, or made where bits would differ."""
        if obstacle := self._obstacle():
            raise ValueError(obstacle)
        here = (row.row_id, self._model.digest, _build(), surroundings(self._model, self._batching))
        there = (found.row_id, found.model, found.build, found.surroundings)
        problems = (
            "it belongs to another row",
            "it was saved with another model",
            "it was saved by another build of framefleet",
            "it was saved with another machine, other libraries or other numerics",
        )
        for problem, mine, its in zip(problems, here, there, strict=True):
            if mine != its:
                raise ValueError(problem)

    def _obstacle(self) -> str | None:
        """Return why no row of this renderer can be handed over, if that is so."""
        if self._model.settings.options.cache:
            return "a step cache holds what earlier steps computed"
        return f"{self._watch.found} changes while a row renders" if self._watch.found else None


def tell_begun_again(row: RenderRow, why: str) -> None:
    about = {"row_id": row.row_id}
    log.warning("row %s starts over: its checkpoint cannot be used: %s", row.row_id, why, extra=about)
