"""The sections `judge` and `captions` as steps whose columns are filled in later."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pyarrow as pa
from PIL import Image

from framefleet.pipeline.errors import JobError
from framefleet.pipeline.guards.json_text import canonical_json
from framefleet.pipeline.outputs.clip_step import CellValue, LateStep, late_field
from framefleet.pipeline.outputs.frames.frames import Frames
from framefleet.pipeline.outputs.parts.records import FAILURE_FIELDS, RECORD_FIELDS
from framefleet.pipeline.outputs.query import check_where
from framefleet.pipeline.rows.tables.column_checks import argument_meant
from framefleet.plugins.words.endpoint import NoAnswer, api_key, ask
from framefleet.plugins.words.section import (
    PLACEHOLDER,
    AnswerSection,
    CaptionsSection,
    EndpointSection,
    FramesSection,
    JudgeSection,
)

_QUALITY = 90  # of JPEG; what models see at 512 pixels


@dataclass(frozen=True, slots=True, kw_only=True)
class _Question:
    """A column of records, and what is asked for it. answer: None for a text."""

    column: str
    section: FramesSection
    answer: AnswerSection | None

    @property
    def digest(self) -> str:
        """SHA-256 of what decides an answer, besides the clip; not of where the model is."""
        decides = {"answer": self.answer.model_dump() if self.answer else None} | {
            key: getattr(self.section, key) for key in ("model", "question", "options", "frames", "max_side")
        }
        return hashlib.sha256(canonical_json(decides).encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class _AskingStep(LateStep):
    """Questions to endpoints about frames of clips."""

    questions: tuple[_Question, ...]
    title: str  # its section
    condition: str | None = None

    @property
    def columns(self) -> pa.Schema:
        fields = []
        for one in self.questions:
            kind = pa.float64() if one.answer and one.answer.number else pa.string()
            fields.append(late_field(one.column, kind, one.digest))
        return pa.schema(fields)

    @property
    def where(self) -> str | None:
        return self.condition

    @property
    def num_parallel(self) -> int:
        return max(one.section.parallel for one in self.questions)

    def check_names(self, records: pa.Schema, arguments: Collection[str]) -> None:
        names = {*records.names, *arguments}
        for one in self.questions:
            for name in one.section.placeholders:
                if name not in names:
                    problem = (
                        f"{self.title}: the question for {one.column!r} has {{{name}}}, which no row has"
                    )
                    raise JobError(problem, argument_meant(name, names))
        if self.condition:
            source = "`until:`" if "accepted" in self.condition else "it to `scores:`"
            check_where(records, self.condition, place=f"{self.title}.where", source=source)

    def ask(self, column: str, frames: Frames | None, record: Mapping[str, Any]) -> CellValue:
        (question,) = (one for one in self.questions if one.column == column)
        if frames is None:
            raise NoAnswer("the clip has no frames")
        content = [{"type": "text", "text": question_text(question.section, record)}]
        content += _images(frames, question.section)
        return ask(question.section, content, question.answer)

    @classmethod
    def _opened(cls, title: str, questions: Sequence[_Question], condition: str | None = None) -> Self | None:
        """Raises JobError for a key that is not set, and for columns that records have already."""
        taken = {*RECORD_FIELDS.names, *FAILURE_FIELDS.names}
        for one in questions:
            if one.column in taken:
                raise JobError(f"{title}: there would be two columns {one.column!r}", "give it another name")
            taken.add(one.column)
            api_key(one.section)
        return cls(questions=tuple(questions), title=title, condition=condition) if questions else None


class JudgeStep(_AskingStep):
    @classmethod
    def open(cls, section: JudgeSection, *, folder: str | None) -> Self | None:
        questions = [_Question(column=one.name, section=one, answer=one.answer) for one in section.root]
        return cls._opened("judge", questions)

    @classmethod
    def column_names(cls, section: JudgeSection) -> list[str]:
        return [one.name for one in section.root]


class CaptionStep(_AskingStep):
    @classmethod
    def open(cls, section: CaptionsSection, *, folder: str | None) -> Self | None:
        if len({one.where for one in section.root}) > 1:
            raise JobError("captions: their `where` differ", "give all of them the same condition")
        questions = [_Question(column=one.column, section=one, answer=None) for one in section.root]
        return cls._opened("captions", questions, section.root[0].where if section.root else None)

    @classmethod
    def column_names(cls, section: CaptionsSection) -> list[str]:
        return [one.column for one in section.root]

    @classmethod
    def for_choice(cls, section: CaptionsSection) -> CaptionsSection:
        return CaptionsSection([])  # drafts are chosen without


def question_text(section: EndpointSection, values: Mapping[str, Any]) -> str:
    """Return the question with the values that its {names} stand for. Raises NoAnswer for a value of none."""
    texts = {}
    for name in section.placeholders:
        value = values.get(name)
        if value is None:
            raise NoAnswer(f"the row has no {name!r}, which the question names")
        texts[name] = str(value)
    return PLACEHOLDER.sub(lambda name: texts[name[1]], section.question)


def _images(frames: Frames, section: FramesSection) -> list[dict[str, Any]]:
    """Return evenly spaced frames as parts of a message."""
    parts = []
    for place in np.linspace(0, len(frames) - 1, min(len(frames), section.frames)).round().astype(int):
        image, buffer = Image.fromarray(frames[place]), io.BytesIO()
        image.thumbnail((section.max_side, section.max_side))
        image.save(buffer, "JPEG", quality=_QUALITY)
        url = f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
        parts.append({"type": "image_url", "image_url": {"url": url}})
    return parts
