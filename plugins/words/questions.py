"""The columns for the sections `judge` and `captions`: questions to endpoints about frames of clips."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from threading import Lock
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from framefleet.api.clips import ClipColumn, Frames, Inputs, ReadAhead, inputs_in, open_arguments
from framefleet.api.errors import InputError, JobError
from framefleet.api.outputs import told_arguments
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

_QUALITY = 90  # of JPEG
_BEFORE_SOURCE, _BEFORE_CLIP = "Frames of the source:", "Frames of the clip:"
_OPENING = Lock()  # one source at a time, since its frames take some hundred megabytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A question about a clip's frames and record. answer: None for text."""

    section: FramesSection
    answer: AnswerSection | None = None
    compare: str | None = None  # argument whose picture or video is also shown

    @property
    def digest(self) -> str:
        """SHA-256 of everything besides the clip that affects an answer, but not the endpoint's address."""
        decides = {"answer": self.answer.model_dump() if self.answer else None} | {
            key: getattr(self.section, key) for key in ("model", "question", "options", "frames", "max_side")
        }
        if self.compare:
            decides["compare"] = self.compare
        return hashlib.sha256(canonical_json(decides).encode()).hexdigest()

    def thinned(self, frames: Frames) -> Frames:
        """Return evenly spaced frames in the size in which they are sent."""
        return np.stack([np.asarray(image) for image in self._shown(frames)])

    def _shown(self, frames: Sequence[Image.Image] | Frames) -> list[Image.Image]:
        """Return evenly spaced frames, as large as they are sent."""
        num, side = min(len(frames), self.section.frames), self.section.max_side
        places = np.linspace(0, len(frames) - 1, num).round().astype(int)
        shown = [Image.fromarray(np.asarray(frames[place])) for place in places]
        for image in shown:
            image.thumbnail((side, side))
        return shown

    def __call__(
        self, frames: Frames | None, record: Mapping[str, Any], inputs: Inputs | None = None
    ) -> CellValue:
        if frames is None:
            raise NoAnswer("the clip has no frames")
        content = [_text(question_text(self.section, record, is_quoted=True))]
        if self.compare and inputs:
            content += [
                _text(_BEFORE_SOURCE),
                *map(_picture, self._source(record, inputs)),
                _text(_BEFORE_CLIP),
            ]
        content += map(_picture, map(Image.fromarray, frames))
        return ask(self.section, content, self.answer)

    def _source(self, record: Mapping[str, Any], inputs: Inputs) -> list[Image.Image]:
        """Return frames of the image or video from which the clip was made, as the model got it."""
        name, arguments = self.compare or "", told_arguments(record)
        if not (parts := inputs_in(arguments.get(name))):
            raise NoAnswer(f"the row has no {name!r} to compare the clip with")
        sizes = {key: value for key, value in arguments.items() if key == name or not inputs_in(value)}
        reader = _reader(inputs)
        try:
            with _OPENING:
                for part in parts:
                    reader.start(part["uri"])
                opened = open_arguments(sizes, reader.read)[name]
                return self._shown(opened if isinstance(opened, list) else [opened])
        except InputError as error:
            raise NoAnswer(error.problem) from None


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _picture(image: Image.Image) -> dict[str, Any]:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_QUALITY)
    url = f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return {"type": "image_url", "image_url": {"url": url}}


@lru_cache(8)  # for the questions of a job
def _reader(inputs: Inputs) -> ReadAhead:
    """Return a reader that reads a small file once for all clips made from it."""
    return ReadAhead(inputs.read)


def open_judge(section: JudgeSection, folder: str | None) -> list[ClipColumn]:
    """Return a column for each question. Raises JobError if a key is not set."""
    return [
        _column(
            one.name,
            Question(section=one, answer=one.answer, compare=one.compare),
            section="judge",
            name_key="judge.name",
        )
        for one in section.root
    ]


def open_captions(section: CaptionsSection, folder: str | None) -> Sequence[ClipColumn]:
    """Return a column for each caption. Raises JobError if a key is not set."""
    if len({one.where for one in section.root}) > 1:
        raise JobError("captions: their `where` differs", "use the same condition for all of them")
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
        placeholders=(*question.section.placeholders, *([question.compare] if question.compare else ())),
        takes_inputs=question.compare is not None,
        **more,
    )


# Quotation marks that the question has around a placeholder become those of the text.
_WITH_MARKS = re.compile(rf'"{PLACEHOLDER.pattern}"|{PLACEHOLDER.pattern}', re.ASCII)


def question_text(section: EndpointSection, values: Mapping[str, Any], *, is_quoted: bool = False) -> str:
    """Return the question with values for its {names}. Raises NoAnswer if a value is missing.

    is_quoted: texts get quotation marks, as in JSON, so that none can pass for a part of the question.
    """

    def text_of(place: re.Match[str]) -> str:
        name = place[place.lastindex or 1]
        value = values.get(name)
        if value is None:
            problem = f"the row has no {name!r}, which the question needs"
            raise NoAnswer(problem, is_final=name in values)  # else a column that comes later
        is_text = is_quoted and (isinstance(value, str) or place[0].startswith('"'))
        return json.dumps(str(value), ensure_ascii=False) if is_text else str(value)

    return (_WITH_MARKS if is_quoted else PLACEHOLDER).sub(text_of, section.question)
