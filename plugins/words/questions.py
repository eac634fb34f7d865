"""The columns of the sections `judge` and `captions`: questions to endpoints about frames of clips."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from framefleet.api.clips import ClipColumn, Frames
from framefleet.api.errors import JobError
from framefleet.api.texts import canonical_json
from framefleet.pipeline.outputs.columns import CellValue
from framefleet.plugins.words.endpoint import NoAnswer, api_key, ask, end_requests
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
class Question:
    """What is asked about a clip, by its frames and record. answer: None for a text."""

    section: FramesSection
    answer: AnswerSection | None = None

    @property
    def digest(self) -> str:
        """SHA-256 of what decides an answer, besides the clip; not of where the model is."""
        decides = {"answer": self.answer.model_dump() if self.answer else None} | {
            key: getattr(self.section, key) for key in ("model", "question", "options", "frames", "max_side")
        }
        return hashlib.sha256(canonical_json(decides).encode()).hexdigest()

    def thinned(self, frames: Frames) -> Frames:
        """Return evenly spaced frames, as large as they are sent."""
        section, thinned = self.section, []
        for place in np.linspace(0, len(frames) - 1, min(len(frames), section.frames)).round().astype(int):
            image = Image.fromarray(frames[place])
            image.thumbnail((section.max_side, section.max_side))
            thinned.append(np.asarray(image))
        return np.stack(thinned)

    def __call__(self, frames: Frames | None, record: Mapping[str, Any]) -> CellValue:
        if frames is None:
            raise NoAnswer("the clip has no frames")
        text = question_text(self.section, record, is_quoted=True)
        content: list[dict[str, Any]] = [{"type": "text", "text": text}]
        for frame in frames:
            buffer = io.BytesIO()
            Image.fromarray(frame).save(buffer, "JPEG", quality=_QUALITY)
            url = f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
            content.append({"type": "image_url", "image_url": {"url": url}})
        return ask(self.section, content, self.answer)


def open_judge(section: JudgeSection, folder: str | None) -> list[ClipColumn]:
    """Return a column for each question. Raises JobError for a key that is not set."""
    return [
        _column(one.name, Question(section=one, answer=one.answer), section="judge", name_key="judge.name")
        for one in section.root
    ]


def open_captions(section: CaptionsSection, folder: str | None) -> Sequence[ClipColumn]:
    """Return a column for each text. Raises JobError for a key that is not set."""
    if len({one.where for one in section.root}) > 1:
        raise JobError("captions: their `where` differ", "give all of them the same condition")
    return [
        _column(
            one.column,
            Question(section=one),
            section="captions",
            name_key="captions.column",
            where=one.where,
        )
        for one in section.root
    ]


def _column(name: str, question: Question, **more: Any) -> ClipColumn:
    api_key(question.section)  # raises where it is not set
    return ClipColumn(
        name=name,
        type=pa.float64() if question.answer and question.answer.number else pa.string(),
        function=question,
        digest=question.digest,
        is_late=True,
        thinned=question.thinned,
        num_parallel=question.section.parallel,
        end=end_requests,
        placeholders=tuple(question.section.placeholders),
        **more,
    )


# Where marks of the question's own stand around a placeholder, they are those of the text.
_WITH_MARKS = re.compile(rf'"{PLACEHOLDER.pattern}"|{PLACEHOLDER.pattern}', re.ASCII)


def question_text(section: EndpointSection, values: Mapping[str, Any], *, is_quoted: bool = False) -> str:
    """Return the question with the values that its {names} stand for. Raises NoAnswer for a value of none.

    is_quoted: texts stand in quotation marks, as in JSON, so that none can pass for a part of the question.
    """

    def text_of(place: re.Match[str]) -> str:
        name = place[place.lastindex or 1]
        value = values.get(name)
        if value is None:
            raise NoAnswer(f"the row has no {name!r}, which the question names")
        is_text = is_quoted and (isinstance(value, str) or place[0].startswith('"'))
        return json.dumps(str(value), ensure_ascii=False) if is_text else str(value)

    return (_WITH_MARKS if is_quoted else PLACEHOLDER).sub(text_of, section.question)
