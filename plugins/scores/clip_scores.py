"""Scores by name: framefleet's own, similarity by a CLIP folder, or a function of frames and record.

And from a clip's frames and its record to its scores, as the clip step of the section `scores` measures them.
What fails is null, and reported: a clip is worth more than a score of it.
"""

from __future__ import annotations

import inspect
import logging
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Self

import pyarrow as pa

from framefleet.pipeline.errors import FramefleetError, JobError
from framefleet.pipeline.guards.mistakes import did_you_mean, either
from framefleet.pipeline.guards.named_function import named_function, source_digest
from framefleet.pipeline.guards.redaction import public_text
from framefleet.pipeline.outputs.clip_step import ClipStep, StepInput, StepValues, late_field
from framefleet.pipeline.outputs.frames.frames import Frames, Pictures, plain_frames
from framefleet.pipeline.outputs.parts.records import FAILURE_FIELDS, RECORD_FIELDS, with_arguments
from framefleet.plugins.scores import measures, model_scores
from framefleet.plugins.scores.names import BY_MODEL
from framefleet.plugins.scores.section import (
    AestheticSection,
    ModelScore,
    ScoresSection,
    SimilaritySection,
)
from framefleet.plugins.scores.similarity import Similarity, open_similarity
from framefleet.plugins.scores.users_process import ScoreFailed, UsersScore

ScoreValue = bool | int | float | None
_TEXT = "text"
_MAX_MESSAGE = 300  # characters of what a function said

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipScore:
    """A column of numbers about clips. kind: of its cells.

    function: of frames, and of what the record says; a user's is called in another process. digest: SHA-256
    of the source file of a user's function, or of the CLIP model; None of framefleet's own.
    """

    name: str
    kind: pa.DataType
    function: Callable[[Frames, Mapping[str, Any]], object]
    digest: str | None = None

    @property
    def is_own(self) -> bool:
        """Whether it is the function of whoever runs the job."""
        return isinstance(self.function, UsersScore)


def _of_frames(
    measure: Callable[[Frames], ScoreValue], frames: Frames, record: Mapping[str, Any]
) -> ScoreValue:
    return measure(frames)


_MEASURES: tuple[tuple[Callable[[Frames], ScoreValue], pa.DataType], ...] = (
    (measures.sharpness, pa.float64()),
    (measures.motion, pa.float64()),
    (measures.flicker, pa.float64()),
    (measures.is_black, pa.bool_()),
    (measures.is_static, pa.bool_()),
    (measures.num_torn_frames, pa.int64()),
)
OWN_SCORES = {
    measure.__name__: ClipScore(name=measure.__name__, kind=kind, function=partial(_of_frames, measure))
    for measure, kind in _MEASURES
}


def score_fields(scores: Iterable[ClipScore]) -> pa.Schema:
    """Return their columns, with the digest of the model or the function that each comes from."""
    return pa.schema([late_field(score.name, score.kind, score.digest) for score in scores])


def open_scores(
    names: Sequence[str],
    models: Sequence[ModelScore] = (),
    *,
    reserved: Collection[str] = (),
    folder: str | None = None,
) -> list[ClipScore]:
    """Return the scores of these names; a user's is `module:function`, and the function's name is its column.

    models: scores by models in folders. reserved: columns that are there already. folder: where
    modules are, besides the current folder. Only for names of those who run the job: importing a module runs
    it. Raises UserError for what is none, or is there twice.
    """
    scores = [_score(name, folder) for name in names]
    for section in models:
        function = _by_model(section)
        scores.append(
            ClipScore(name=section.column, kind=pa.float64(), function=function, digest=function.digest)
        )
    columns = [score.name for score in scores]
    for column in columns:
        if columns.count(column) > 1 or column in reserved:
            raise JobError(
                f"scores: there would be two columns {column!r}",
                "give the function another name, or leave one out",
            )
    return scores


def _by_model(section: ModelScore) -> Similarity | model_scores.Aesthetic | model_scores.Unsafe:
    if isinstance(section, SimilaritySection):
        return open_similarity(section.similarity)
    if isinstance(section, AestheticSection):
        return model_scores.open_aesthetic(section.aesthetic, section.clip, allow_pickle=section.allow_pickle)
    return model_scores.open_unsafe(section.nsfw)


def _score(name: str, folder: str | None) -> ClipScore:
    if name in OWN_SCORES:
        return OWN_SCORES[name]
    if name == _TEXT:
        text = model_scores.open_text()
        return ClipScore(name=_TEXT, kind=pa.float64(), function=text, digest=text.digest)
    if name in BY_MODEL:
        raise JobError(f"scores: {name} needs a model", f"write it as `{BY_MODEL[name]}`")
    if ":" not in name:
        fix = either(did_you_mean(name, OWN_SCORES), "name yours as module:function")
        raise JobError(f"scores: there is no score {name!r}", fix)
    function = named_function(name, "score", folder=folder)
    try:
        inspect.signature(function).bind(None, None)
    except TypeError:
        raise JobError(
            f"score {name!r} does not take (frames, record)", "give it these two parameters"
        ) from None
    return ClipScore(
        name=function.__name__,
        kind=pa.float64(),
        function=UsersScore(name, folder, function),
        digest=source_digest(function),
    )


def score_clip(
    scores: Sequence[ClipScore], pictures: Pictures | None, record: Mapping[str, Any]
) -> StepValues:
    """Return all scores of one clip; of sound alone each is None. Raises nothing.

    pictures: as records have them; alpha is laid over black, light beyond [0, 1] is cut off, and layers
    count as frames. record: its columns; functions get them with the arguments besides them.
    """
    if not scores:
        return StepValues()
    if pictures is None:
        return StepValues(values={score.name: None for score in scores})
    try:
        frames, columns = plain_frames(pictures), with_arguments(record)
    except Exception as error:  # no memory for a second copy: the clip is there
        names = [score.name for score in scores]
        return StepValues(values=dict.fromkeys(names), errors=dict.fromkeys(names, _message(error)))
    values: dict[str, ScoreValue] = {}
    errors: dict[str, str] = {}
    for score in scores:
        try:
            values[score.name] = _number(score, score.function(frames, columns))
        except Exception as error:
            log.info("score %s of row %s", score.name, record.get("row_id"), exc_info=True)
            values[score.name], errors[score.name] = None, _message(error)
    return StepValues(values=values, errors=errors)


def _message(error: Exception) -> str:
    message = error.problem if isinstance(error, FramefleetError) else f"{type(error).__name__}: {error}"
    message = str(error) if isinstance(error, ScoreFailed) else message
    return public_text(message)[:_MAX_MESSAGE]


def _number(score: ClipScore, given: object) -> ScoreValue:
    """Return what a function gave as a cell of its column. Raises for what is no finite number."""
    value: Any = given.item() if hasattr(given, "item") else given  # of NumPy, or torch: raises for many
    if value is None:
        return None
    if not isinstance(value, bool | int | float):
        raise TypeError(f"it returned {type(given).__name__}, not a number")
    if not math.isfinite(value):
        raise ValueError(f"it returned {value}")
    kinds = {pa.bool_(): bool, pa.int64(): int, pa.float64(): float}
    number: ScoreValue = kinds[score.kind](value)
    return number


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreStep(ClipStep):
    """A score that fails is null, and its row is kept: see README.md."""

    scores: tuple[ClipScore, ...]

    changes_file: ClassVar[bool] = False

    @classmethod
    def open(cls, section: ScoresSection, *, folder: str | None) -> Self | None:
        if not section:
            return None
        columns = [model.column for model in section.models]
        for column in columns:
            if columns.count(column) > 1:
                raise JobError(f"scores: there are two models for {column!r}", "remove one")
        reserved = {*RECORD_FIELDS.names, *FAILURE_FIELDS.names}
        opened = open_scores(section.names, section.models, reserved=reserved, folder=folder)
        return cls(scores=tuple(opened))

    @property
    def columns(self) -> pa.Schema:
        return score_fields(self.scores)

    @classmethod
    def column_names(cls, section: ScoresSection) -> list[str]:
        return section.column_names

    @property
    def functions(self) -> tuple[Callable[..., object], ...]:
        scores = (score.function for score in self.scores)
        return tuple(one.function for one in scores if isinstance(one, UsersScore) and one.function)

    @classmethod
    def for_choice(cls, section: ScoresSection) -> ScoresSection:
        return section if section else ScoresSection(list(OWN_SCORES))

    def prepare(self) -> None:
        """Load models before others compute: libraries set torch's default dtype and draw random numbers."""
        for score in self.scores:
            if isinstance(
                score.function,
                Similarity | model_scores.Aesthetic | model_scores.Unsafe | model_scores.PictureText,
            ):
                score.function.load()

    def values(self, of: StepInput, content: bytes, record: Mapping[str, Any]) -> StepValues:
        return score_clip(self.scores, of.clip.frames, record)
