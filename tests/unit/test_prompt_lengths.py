"""How much of a row's prompts is read."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import ByT5Tokenizer

from framefleet import Request
from framefleet.pipeline.render.prompt_readers import PromptReaders
from framefleet.pipeline.rows.prompt_lengths import PromptReading, TextReader, reading_of


def words(texts: list[str]) -> list[int]:
    return [len(text.split()) for text in texts]


CLIP = TextReader(class_name="CLIPTokenizer", max_length=4, count=words)
T5 = TextReader(class_name="T5TokenizerFast", max_length=6, count=words)
ENDLESS = TextReader(class_name="ByT5Tokenizer", max_length=10**30, count=words)
LONG = "one two three four five"


@pytest.mark.parametrize(
    ("readers", "asked", "limit", "is_cut"),
    [
        ([CLIP], None, 4, True),
        ([CLIP], 512, 4, True),  # it has no more positions
        ([T5], None, 6, False),
        ([T5], 3, 3, True),
        ([T5], 5, 5, False),
        ([CLIP, T5], None, 6, False),  # one of them reads all of it
        ([CLIP, T5], 3, 4, True),
        ([ENDLESS], 5, 5, False),
        ([ENDLESS], None, None, None),
    ],
)
def test_a_prompt_is_cut_where_even_the_encoder_that_reads_most_stops_before_its_end(
    readers: list[TextReader], asked: int | None, limit: int | None, is_cut: bool | None
) -> None:
    arguments: dict[str, Any] = {"prompt": LONG} | ({"max_sequence_length": asked} if asked else {})
    assert reading_of(readers, arguments) == PromptReading(num_tokens=5, limit=limit, is_cut=is_cut)


def test_what_is_not_read_does_not_count() -> None:
    assert reading_of([], {"prompt": "a"}) is None and reading_of([T5], {"image": "a.png"}) is None
    arguments = {"prompt": "one", "negative_prompt": LONG, "guidance_scale": 5.0}
    assert reading_of([CLIP], arguments) == PromptReading(num_tokens=1, limit=4, is_cut=True)
    not_guided = reading_of([CLIP], arguments | {"guidance_scale": 1.0})
    assert not_guided == PromptReading(num_tokens=1, limit=4, is_cut=False)


def test_a_pipelines_tokenizers_count_and_one_that_fails_costs_no_clip() -> None:
    def reading(tokenizer: Any) -> PromptReading | None:
        return PromptReaders([object(), tokenizer]).reading(Request(arguments={"prompt": "a cat"}))

    class Failing(ByT5Tokenizer):
        def __call__(self, *_: Any, **__: Any) -> Any:
            raise KeyError("a token")

    assert reading(ByT5Tokenizer()) == PromptReading(num_tokens=6, limit=None, is_cut=None)
    assert reading(Failing()) is None
