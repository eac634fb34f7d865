"""Scores by name: framefleet's own, similarity by a CLIP folder, or a function of frames and record."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from framefleet.pipeline.errors import JobError
from framefleet.pipeline.guards.mistakes import did_you_mean
from framefleet.pipeline.guards.named_function import named_function, source_digest
from framefleet.pipeline.outputs.frames.frames import Frames
from framefleet.pipeline.scores.measures import (
    flicker,
    is_black,
    is_static,
    motion,
    num_torn_frames,
    sharpness,
)
from framefleet.pipeline.scores.similarity import Similarity, open_similarity

ScoreValue = bool | int | float | None
SIMILARITY = "similarity"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipScore:
    """A column of numbers about clips. kind: of its cells.

    function: of frames, and of what the record says. digest: SHA-256 of the source file of a user's
    function, or of the CLIP model; None of framefleet's own.
    """

    name: str
    kind: pa.DataType
    function: Callable[[Frames, Mapping[str, Any]], object]
    digest: str | None = None

    @property
    def is_own(self) -> bool:
        """Whether it is the function of whoever runs the job."""
        return self.digest is not None and self.name != SIMILARITY


@dataclass(frozen=True, slots=True)
class OfFrames:
    """A function of frames alone."""

    measure: Callable[[Frames], ScoreValue]

    def __call__(self, frames: Frames, record: Mapping[str, Any]) -> ScoreValue:
        return self.measure(frames)


_MEASURES: tuple[tuple[Callable[[Frames], ScoreValue], pa.DataType], ...] = (
    (sharpness, pa.float64()),
    (motion, pa.float64()),
    (flicker, pa.float64()),
    (is_black, pa.bool_()),
    (is_static, pa.bool_()),
    (num_torn_frames, pa.int64()),
)
OWN_SCORES = {
    measure.__name__: ClipScore(name=measure.__name__, kind=kind, function=OfFrames(measure))
    for measure, kind in _MEASURES
}


def score_fields(scores: Iterable[ClipScore]) -> pa.Schema:
    """Return their columns."""
    return pa.schema([(score.name, score.kind) for score in scores])


def score_cells(scores: Iterable[ClipScore], values: Mapping[str, ScoreValue]) -> dict[str, ScoreValue]:
    """Return the cells of these columns; None for what a column cannot hold: values may be anybody's."""
    return {score.name: _fitting(score.kind, values.get(score.name)) for score in scores}


def _fitting(kind: pa.DataType, value: ScoreValue) -> ScoreValue:
    try:
        cell: ScoreValue = pa.scalar(value, kind).as_py()
    except (pa.ArrowException, OverflowError):
        return None
    return cell


def open_scores(
    names: Sequence[str], clip: str | None = None, *, reserved: Collection[str] = ()
) -> list[ClipScore]:
    """Return the scores of these names; a user's is `module:function`, and the function's name is its column.

    clip: the folder of a CLIP model, for similarity. reserved: columns that are there already. Only for
    names of those who run the job: importing a module runs it. Raises UserError for what is none, or is
    there twice.
    """
    scores = [_score(name) for name in names]
    if clip is not None:
        function = open_similarity(clip)
        scores.append(
            ClipScore(name=SIMILARITY, kind=pa.float64(), function=function, digest=function.digest)
        )
    columns = [score.name for score in scores]
    for column in columns:
        if columns.count(column) > 1 or column in reserved:
            raise JobError(
                f"scores: there would be two columns {column!r}",
                "give the function another name, or leave one out",
            )
    return scores


def load_scores(scores: Iterable[ClipScore]) -> None:
    """Load the models among them, once for this process: while others compute, that would disturb them.

    Libraries set torch's default dtype and draw from its global generator as they load.
    """
    for score in scores:
        if isinstance(score.function, Similarity):
            score.function.load()


def _score(name: str) -> ClipScore:
    if name in OWN_SCORES:
        return OWN_SCORES[name]
    if name == SIMILARITY:
        raise JobError("scores: similarity needs a CLIP model", "write it as `{similarity: /models/clip}`")
    if ":" not in name:
        fix = did_you_mean(name, OWN_SCORES)
        raise JobError(f"there is no score {name!r}", f"{fix}; or name yours as module:function")
    function = named_function(name, "score")
    try:
        inspect.signature(function).bind(None, None)
    except TypeError:
        raise JobError(
            f"score {name!r} does not take (frames, record)", "give it these two parameters"
        ) from None
    return ClipScore(
        name=function.__name__, kind=pa.float64(), function=function, digest=source_digest(function)
    )
