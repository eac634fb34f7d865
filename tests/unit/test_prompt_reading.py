"""What is said of prompts that are longer than a model reads; words stand in for tokens."""

from __future__ import annotations

from typing import Any

import pytest

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


def test_a_negative_prompt_counts_where_it_is_read() -> None:
    arguments = {"prompt": "one", "negative_prompt": LONG, "guidance_scale": 5.0}
    assert reading_of([CLIP], arguments) == PromptReading(num_tokens=1, limit=4, is_cut=True)
    assert reading_of([CLIP], arguments | {"guidance_scale": 1.0}) == PromptReading(
        num_tokens=1, limit=4, is_cut=False
    )


@pytest.mark.parametrize(("readers", "arguments"), [([], {"prompt": "a"}), ([T5], {"image": "a.png"})])
def test_nothing_is_said_where_nothing_is_known(readers: list[TextReader], arguments: dict[str, Any]) -> None:
    assert reading_of(readers, arguments) is None
