"""From an output to the scores of its clips, as parts next to its records. Continues an earlier run."""

from __future__ import annotations

import os
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import ValidationError

from framefleet.cluster.driver.progress import LackingColumn
from framefleet.jobs.job.mistakes import mistakes_in
from framefleet.jobs.show.watch import Callback, ClipsPace, ClipsProgress, duration
from framefleet.pipeline.errors import JobError, StoreError, count_text
from framefleet.pipeline.guards.arguments import AtLeastOne
from framefleet.pipeline.guards.strict_model import Strict
from framefleet.pipeline.outputs.clip_step import StepValues, fitting_cells
from framefleet.pipeline.outputs.layout import RECORDS, SCORES
from framefleet.pipeline.outputs.media.media import decode
from framefleet.pipeline.outputs.output import HOW, MAX_CLIP_BYTES, Output, recorded_clip, sound_content
from framefleet.pipeline.outputs.parts import record_tables
from framefleet.pipeline.outputs.parts.part_file import columns_of
from framefleet.pipeline.outputs.parts.parts import PartWriter, read_parts
from framefleet.pipeline.outputs.parts.records import FIRST_FIELDS, column_digest, fields_named
from framefleet.pipeline.outputs.parts.seals import new_run, parts_in
from framefleet.pipeline.outputs.query import records_where
from framefleet.pipeline.outputs.stores.store import Store
from framefleet.pipeline.overview import Overview
from framefleet.plugins.scores import clip_scores
from framefleet.plugins.scores.section import ScoresSection

_ROW_ID = fields_named(FIRST_FIELDS, "row_id")
# What clips are found and compared by.
_READ = ("row_id", "uri", "path", "media_sha256", "frames_sha256", "bytes", "arguments")


@dataclass(slots=True, repr=False)
class ScoreSummary(Overview):
    """How a run of `score` ended."""

    columns: tuple[str, ...] = ()  # scores that were measured
    done: int = 0  # clips with new scores
    elapsed_s: float = 0.0
    num_damaged: int = 0  # clips that are not as they were committed
    damage: str | None = None  # the first of them
    # Scores that failed, by name; they are null.
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

    def add(self, row_id: str, outcome: StepValues | str) -> None:
        """Count a clip: its scores, or what is wrong with it."""
        if isinstance(outcome, str):
            self.num_damaged += 1
            self.damage = self.damage or outcome
            return
        self.done += 1
        for name, message in outcome.errors.items():
            before = self.unscored.get(name)
            example = before.example if before else f"row {row_id}: {message}"
            num = before.num + 1 if before else 1
            self.unscored[name] = LackingColumn(section="scores", num=num, example=example)


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
    """Measure the clips of an output and add the scores to its records; return how that ended.

    scores: as a job has them: "sharpness", ..., {"similarity": "clip_folder"}, ... or yours as
    "module:function", of frames, (T, H, W, 3) uint8, and a mapping of what the record says, to a number; ()
    is all of framefleet's. where: a condition in SQL on columns of records. again: measure scores that a clip
    has too, and replace them. num_threads: clips at once; None is one a core. Only scores that a clip lacks
    are measured, so the same call continues after an interruption. Raises FramefleetError.
    """
    store, watch = Output.open(str(output), storage_options).store, Callback(on_progress)
    if not parts_in(store, RECORDS):
        raise Output(store).no_records()
    values = {"scores": [*scores] or [*clip_scores.OWN_SCORES]}
    try:
        step = clip_scores.ScoreStep.open(_Wanted.model_validate(values).scores, folder=None)
    except ValidationError as error:
        problem, fix = next(mistakes_in(error, values, {}, _Wanted))
        raise JobError(problem, fix) from None
    assert step is not None, "there are some"
    opened, columns = step.scores, step.columns
    step.prepare()
    store.below(SCORES).sweep()  # what a killed run left half written; no lock is taken, which would do it
    _check_free(store, opened)
    nulls = {} if again else _null_scores(store, opened, columns)
    left = partial(_left, store, opened, where, nulls, again=again)
    total = sum(1 for _ in left(is_count=True))
    started, pace = time.monotonic(), ClipsPace("scored", total=total, watch=watch)
    summary, measured = ScoreSummary(), set[str]()
    writers: dict[tuple[str, ...], PartWriter] = {}
    clips = scored_clips(store, left(), num_threads=num_threads or os.cpu_count() or 1)
    try:
        with closing(clips):  # type: ignore[type-var]  # a generator
            for record, outcome in clips:
                summary.add(record["row_id"], outcome)
                if not isinstance(outcome, str):
                    # Of what was measured alone: another score of the clip is more exact, or failed.
                    measured |= outcome.values.keys() | outcome.errors.keys()
                    names = outcome.values.keys() - outcome.errors
                    if fields := pa.schema([field for field in columns if field.name in names]):
                        key = tuple(fields.names)
                        if key not in writers:
                            schema = pa.schema([("row_id", pa.string()), *record_tables.OF_CLIP, *fields])
                            writers[key] = PartWriter(store, SCORES, schema, run=new_run(0))
                        of_clip = {name: record[name] for name in ("row_id", "media_sha256")}
                        writers[key].add(None, of_clip | fitting_cells(fields, outcome.values))
                for writer in writers.values():
                    if writer.due(time.monotonic()):
                        writer.flush()
                pace.add(1)
    finally:
        for writer in writers.values():
            writer.flush()
    summary.elapsed_s = time.monotonic() - started
    summary.columns = tuple(score.name for score in opened if score.name in measured)
    return summary


def _check_free(store: Store, scores: Sequence[clip_scores.ClipScore]) -> None:
    """Raise JobError for a column of that name that can be no earlier run of the score."""
    columns, taken = record_tables.record_schema_of(store), record_tables.taken_columns(store)
    for score in scores:
        is_other = score.name in columns.names and columns.field(score.name).type != score.kind
        if is_other or score.name in taken:
            raise JobError(
                f"scores: there would be two columns {score.name!r}, as the records carry one of that name",
                "give the function another name, or name the other scores with --scores",
            )


def _null_scores(
    store: Store, scores: Sequence[clip_scores.ClipScore], columns: pa.Schema
) -> dict[str, set[bytes]]:
    """Return the clips, by score, that earlier runs measured without a result; see `_key`."""
    paths_by_names: dict[tuple[str, ...], list[str]] = {}
    for part in parts_in(store, SCORES):
        there = columns_of(store, part.path)[0]
        both = [score.name for score in scores if score.name in there.names]
        same = [
            name for name in both if column_digest(there.field(name)) == column_digest(columns.field(name))
        ]
        paths_by_names.setdefault(tuple(same), []).append(part.path)
    nulls: dict[str, set[bytes]] = defaultdict(set)
    for names, paths in paths_by_names.items():
        fields = pa.schema([*_ROW_ID, *record_tables.OF_CLIP, *(columns.field(name) for name in names)])
        for table in read_parts(store, paths, fields) if names else ():
            for name in names:
                lacking = table.filter(pc.is_null(table[name]))
                clips = zip(lacking["row_id"].to_pylist(), record_tables.clips_of(lacking), strict=True)
                nulls[name].update(_key(row_id, clip) for row_id, clip in clips)
    return nulls


def _key(row_id: str, clip: str) -> bytes:
    """clip: its media_sha256; "": any of the row."""
    return bytes.fromhex(row_id + clip)


def _left(
    store: Store,
    scores: Sequence[clip_scores.ClipScore],
    where: str | None,
    nulls: Mapping[str, set[bytes]],
    *,
    again: bool,
    is_count: bool = False,
) -> Iterator[tuple[dict[str, Any], list[clip_scores.ClipScore]]]:
    """Yield records, each with the scores to measure. is_count: without what is not needed to count them."""

    def is_missing(row: Mapping[str, Any], name: str) -> bool:
        if row.get(name) is not None or not (of_score := nulls.get(name)):
            return row.get(name) is None
        return all(_key(row["row_id"], clip) not in of_score for clip in (row["media_sha256"], ""))

    names = [score.name for score in scores]
    is_whole = any(score.is_own for score in scores) and not is_count
    wanted = record_tables.record_schema_of(store).names if is_whole else [*_READ, *names]
    for table in records_where(store, wanted, where):
        for row in table.to_pylist():
            lacking = [score for score in scores if again or is_missing(row, score.name)]
            if lacking:
                yield row, lacking


def scored_clips(
    store: Store,
    records: Iterable[tuple[Mapping[str, Any], Sequence[clip_scores.ClipScore]]],
    *,
    num_threads: int,
) -> Iterator[tuple[Mapping[str, Any], StepValues | str]]:
    """Yield records, each with these scores of its clip or what is wrong with that; several measured at once.

    At most twice as many clips are under way as there are threads, each of up to 3 GB when it is decoded.
    Raises StoreError for an output that does not answer.
    """
    waiting: deque[tuple[Mapping[str, Any], Future[StepValues | str]]] = deque()
    left = iter(records)
    with ThreadPoolExecutor(num_threads) as threads:
        try:
            while True:
                for record, scores in islice(left, 2 * num_threads - len(waiting)):
                    waiting.append((record, threads.submit(_scored, store, scores, record)))
                if not waiting:
                    return
                record, outcome = waiting.popleft()
                yield record, outcome.result()
        finally:
            threads.shutdown(wait=False, cancel_futures=True)


def _scored(
    store: Store, scores: Sequence[clip_scores.ClipScore], record: Mapping[str, Any]
) -> StepValues | str:
    """Return the scores of a clip, or what is wrong with it."""
    if record["frames_sha256"] is None:  # sound alone
        return clip_scores.score_clip(scores, None, record)
    try:
        file = recorded_clip(record)
    except JobError as error:  # the record may be anybody's
        return error.problem
    if record["bytes"] > MAX_CLIP_BYTES:
        return f"{file.path}: it has more than {MAX_CLIP_BYTES:,} bytes"
    content = sound_content(store, file)
    if not isinstance(content, bytes):
        return f"{file.path}: {HOW[content]}"
    try:
        return clip_scores.score_clip(scores, decode(content), record)
    except StoreError as error:
        return f"{file.path}: {error.problem}"
