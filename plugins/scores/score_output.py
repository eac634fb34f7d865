"""Measure scores of an output's clips, and write them as parts next to its records."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from framefleet.api.commands import Callback, ClipsProgress, Overview, duration
from framefleet.api.errors import JobError, count_text
from framefleet.api.outputs import RECORDS, Output
from framefleet.api.sections import AtLeastOne, Strict
from framefleet.cluster.driver.progress import LackingColumn
from framefleet.jobs.job.mistakes import mistakes_in
from framefleet.pipeline.outputs.parts.seals import parts_in
from framefleet.plugins.columns.fill import Filling
from framefleet.plugins.scores.clip_scores import OWN_SCORES, open_scores
from framefleet.plugins.scores.section import ScoresSection


@dataclass(slots=True, repr=False)
class ScoreSummary(Overview):
    """The result of `score`."""

    columns: tuple[str, ...] = ()  # measured scores
    done: int = 0  # clips with new scores
    elapsed_s: float = 0.0
    num_damaged: int = 0  # clips that are not as they were committed
    damage: str | None = None  # of the first of them
    # Failed scores, by name; they are null.
    unscored: dict[str, LackingColumn] = field(default_factory=dict)

    def overview(self) -> Mapping[str, object]:
        unscored = (f"{name} of {count_text(one.num, 'clip')}" for name, one in self.unscored.items())
        return {
            "scored": f"{count_text(self.done, 'clip')} in {duration(self.elapsed_s)}",
            "columns": ", ".join(self.columns) or None,
            "failed": "; ".join(unscored) or None,
            "damaged": f"{count_text(self.num_damaged, 'clip')}, e.g. {self.damage}"
            if self.num_damaged
            else None,
        }


class _Wanted(Strict):
    scores: ScoresSection


def score(
    output: str | Path,
    scores: Sequence[str | Mapping[str, Any]] = (),
    *,
    where: str | None = None,
    again: bool = False,
    num_threads: AtLeastOne | None = None,
    storage_options: Mapping[str, Any] | None = None,
    on_progress: Callable[[ClipsProgress], None] | None = None,
) -> ScoreSummary:
    """Measure the clips of an output, and add the scores to its records.

    scores: as in a job: "sharpness", ..., {"similarity": "clip_folder"}, ... or yours as "module:function",
    which gets frames, (T, H, W, 3) uint8, and a mapping with the record, and returns a number. () means all
    of framefleet's. where: a condition in SQL on columns of records. again: also measure and replace scores
    that clips already have. num_threads: clips at once; None is one per core. Only missing scores are
    measured, so the same call continues after an interruption. Raises FramefleetError.
    """
    store, watch = Output.open(str(output), storage_options).store, Callback(on_progress)
    if not parts_in(store, RECORDS):
        raise Output(store).no_records()
    values = {"scores": [*scores] or [*OWN_SCORES]}
    try:
        columns = open_scores(_Wanted.model_validate(values).scores)
    except ValidationError as error:
        problem, fix = next(mistakes_in(error, values, {}, _Wanted))
        raise JobError(problem, fix) from None
    num_threads = num_threads or os.cpu_count() or 1
    filling = Filling(store, columns, where=where, again=again, num_threads=num_threads)
    for column in columns:
        if column.prepare:
            column.prepare()
    started = time.monotonic()
    with filling:
        filling.fill(watch=watch, verb="scored")
    return ScoreSummary(
        columns=tuple(column.name for column in columns if column.name in filling.filled),
        done=filling.num_done,
        elapsed_s=time.monotonic() - started,
        num_damaged=filling.num_damaged,
        damage=filling.damage,
        unscored=filling.lacking,
    )
