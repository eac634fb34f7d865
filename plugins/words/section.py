"""The sections `judge`, `captions` and `prompts` of a job file.

Light to import, since every job file is read with it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Self

from pydantic import AfterValidator, BeforeValidator, Field, JsonValue, model_validator
from pydantic_core import PydanticCustomError

from framefleet.api.engines import is_plain_address
from framefleet.api.sections import ListSection, MustBe, Section, as_list
from framefleet.api.texts import secret_in

PLACEHOLDER = re.compile(r"\{([A-Za-z_]\w*)\}", re.ASCII)
_PATH = "/chat/completions"
_OUR_KEYS = {"model", "messages", "response_format", "n", "stream"}


Words = Annotated[str, Field(min_length=1)]
Identifier = Annotated[
    str,
    Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$"),
    MustBe("of letters, digits and _, with no digit first"),
]


def _checked_url(url: str) -> str:
    if not is_plain_address(url):  # as job.json stores it
        example = "https://api.example.com/v1"
        raise PydanticCustomError("url", f"an address such as {example}, without user, password and query")
    if url.rstrip("/").endswith(_PATH):
        raise PydanticCustomError("url", f"given without its end {_PATH}, which framefleet adds")
    return url


class PriceSection(Section):
    """Prices of an endpoint per million tokens, in any currency."""

    input: float = Field(ge=0)
    """Price per million tokens of requests."""
    output: float = Field(ge=0)
    """Price per million tokens of answers."""


class EndpointSection(Section):
    """A question to an endpoint that speaks OpenAI's protocol."""

    url: Annotated[str, AfterValidator(_checked_url)]
    """The endpoint's address without `/chat/completions`, e.g. https://api.openai.com/v1."""
    model: Words
    """Name of the model at the endpoint."""
    question: Words
    """Question to ask. {prompt} is replaced by the row's prompt; likewise other columns and arguments."""
    api_key_env: Identifier | None = None
    """Environment variable with the key, e.g. OPENAI_API_KEY. The key itself is never stored."""
    options: dict[str, JsonValue] = Field(default_factory=dict)
    """More keys for the request, sent unchanged, e.g. {temperature: 0, max_tokens: 200}."""
    attempts: int = Field(default=4, ge=1)
    """Maximum number of attempts per question, if there is no valid answer."""
    timeout_s: float = Field(default=60.0, gt=0)
    """Seconds to wait for an answer."""
    parallel: int = Field(default=4, ge=1, le=256)
    """Maximum number of requests at once."""
    requests_per_minute: float | None = Field(default=None, gt=0)
    """Limit of requests to this model. Default: none."""
    max_requests: int | None = Field(default=None, ge=1)
    """Limit of requests to this model in one run, including retries. Default: none."""
    max_cost: float | None = Field(default=None, gt=0)
    """Limit of this model's cost in one run, by `price`. Requests in flight may exceed it."""
    price: PriceSection | None = None
    """Prices of the endpoint; needed for `max_cost`."""

    @model_validator(mode="after")
    def _is_bounded(self) -> Self:
        if self.max_cost is not None and self.price is None:
            raise PydanticCustomError(
                "price", "given with `price`, as `max_cost` is: {input: 2.5, output: 10}"
            )
        if secret := secret_in(self.options):  # job.json has them
            wanted = "without {key} in `options`; name its environment variable in `api_key_env`"
            raise PydanticCustomError("options", wanted, {"key": secret})
        if ours := sorted(_OUR_KEYS & self.options.keys()):
            raise PydanticCustomError(
                "options", "without {key} in `options`, which framefleet sets itself", {"key": ours[0]}
            )
        return self

    @property
    def placeholders(self) -> list[str]:
        return PLACEHOLDER.findall(self.question)


class AnswerSection(Section):
    """The form of an answer: a number from a range, or one of several words."""

    number: Annotated[list[float], Field(min_length=2, max_length=2)] | None = None
    """Smallest and largest number, e.g. [0, 10]."""
    choice: Annotated[list[Words], Field(min_length=2)] | None = None
    """Words to choose from, e.g. [good, bad]."""

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if (self.number is None) == (self.choice is None):
            raise PydanticCustomError("answer", "given as {number: [0, 10]} or as {choice: [good, bad]}")
        if self.number and not self.number[0] < self.number[1]:
            raise PydanticCustomError("answer", "a range whose second number is larger")
        if self.choice and len({*self.choice}) < len(self.choice):
            raise PydanticCustomError("answer", "a choice of different words")
        return self


class FramesSection(EndpointSection):
    """A question about frames of a clip."""

    frames: int = Field(default=4, ge=1, le=64)
    """Number of frames to show, evenly spaced, including first and last."""
    max_side: int = Field(default=512, ge=16, le=4096)
    """Frames whose longer side has more pixels are scaled down to this size."""


class QuestionSection(FramesSection):
    """A question about each clip, with a number or a choice as answer."""

    name: Identifier
    """Name of its column in the records."""
    answer: AnswerSection
    compare: Identifier | None = None
    """Argument whose image or video is shown first, as the model got it, e.g. video, so that the question can
    compare the clip with its source."""


class JudgeSection(ListSection[list[QuestionSection]]):
    """Questions about every clip, asked in the background. Each is a column, null until it is answered."""

    root: list[QuestionSection] = Field(default_factory=list)

    @property
    def column_names(self) -> Sequence[str]:
        return [one.name for one in self.root]


class CaptionSection(FramesSection):
    """A caption for each clip."""

    question: Words = (
        "These are frames of one video, in order. Describe in two or three sentences what it shows: "
        "subjects, actions, setting, camera and style. Do not mention frames."
    )
    """Question to ask. {prompt} is replaced by the row's prompt; likewise other columns and arguments."""
    column: Identifier = "caption"
    """Name of its column in the records."""
    where: Words | None = None
    """Condition in SQL on columns of records, e.g. accepted. Only clips that pass get one, at the end."""


class CaptionsSection(ListSection[Annotated[list[CaptionSection], BeforeValidator(as_list)]]):
    """Captions of clips, columns of the records: one, or a list."""

    root: Annotated[list[CaptionSection], BeforeValidator(as_list)] = Field(default_factory=list)

    @property
    def column_names(self) -> Sequence[str]:
        return [one.column for one in self.root]

    @property
    def for_choice(self) -> CaptionsSection:
        return CaptionsSection([])  # choosing drafts needs no captions


class RewriteSection(EndpointSection):
    """How prompts are rewritten."""

    question: Words = (
        "Rewrite this prompt for a text-to-video model, in one paragraph of at most 100 words. Keep what it "
        "says; add setting, light, camera and style where it leaves them open.\n\n{prompt}"
    )
    """Question to ask. {prompt} is replaced by the row's prompt; likewise other columns of the table."""

    @model_validator(mode="after")
    def _has_prompt(self) -> Self:
        if "prompt" not in self.placeholders:
            raise PydanticCustomError("question", "given with {prompt} in `question`, for the row's prompt")
        return self


class PromptsSection(Section):
    """Prompts are written once, before rows are rendered, and then stay the same."""

    rewrite: RewriteSection
    """Replaces each prompt of the table; records have the original as `original_prompt`."""
