"""The clip step of the section `scores`: measures each clip, as it was rendered."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import pyarrow as pa

from framefleet.pipeline.errors import JobError
from framefleet.pipeline.outputs.clip_step import ClipStep, StepInput, StepValues
from framefleet.pipeline.outputs.parts.records import FAILURE_FIELDS, MAY_COME_LATER, RECORD_FIELDS
from framefleet.plugins.scores.clip_scores import (
    OWN_SCORES,
    ClipScore,
    load_scores,
    open_scores,
    score_clip,
    score_fields,
)
from framefleet.plugins.scores.section import ScoresSection
from framefleet.plugins.scores.users_process import UsersScore


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreStep(ClipStep):
    """A score that fails is null, and its row is kept: see README.md."""

    scores: tuple[ClipScore, ...]

    changes_file: ClassVar[bool] = False

    @classmethod
    def open(cls, section: ScoresSection, *, folder: str | None) -> Self | None:
        if not section:
            return None
        if len(section.folders) > 1:
            raise JobError("scores: there are two CLIP models", "remove one")
        reserved = {*RECORD_FIELDS.names, *FAILURE_FIELDS.names}
        clip = next(iter(section.folders), None)
        return cls(scores=tuple(open_scores(section.names, clip, reserved=reserved, folder=folder)))

    @property
    def columns(self) -> pa.Schema:
        return pa.schema([field.with_metadata(MAY_COME_LATER) for field in score_fields(self.scores)])

    @classmethod
    def column_names(cls, section: ScoresSection) -> list[str]:
        return section.column_names

    @property
    def functions(self) -> tuple[Callable[..., object], ...]:
        scores = (score.function for score in self.scores)
        return tuple(one.function for one in scores if isinstance(one, UsersScore) and one.function)

    @classmethod
    def untrusted(cls, section: ScoresSection) -> Iterator[tuple[str, Any]]:
        if section.folders or any(":" in name for name in section.names):
            yield "scores", section.model_dump()

    @classmethod
    def for_choice(cls, section: ScoresSection) -> ScoresSection:
        return section if section else ScoresSection(list(OWN_SCORES))

    def prepare(self) -> None:
        load_scores(self.scores)

    def values(self, of: StepInput, content: bytes, record: Mapping[str, Any]) -> StepValues:
        return score_clip(self.scores, of.clip.frames, record)
