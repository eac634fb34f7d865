"""Forwards as long as their prompts are noticed, and rows of equal lengths get a shape of their own."""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pyarrow as pa
import pytest
from transformers import ByT5Tokenizer

from framefleet import Request
from framefleet.cluster.dispatch.lease import Row
from framefleet.cluster.driver.feed import Pending, by_prompt_lengths
from framefleet.pipeline.render.prompt_watch import PromptWatch
from framefleet.pipeline.rows.prompt_lengths import (
    CountedApart,
    PromptLengths,
    PromptReading,
    TextReader,
    reading_of,
)
from tests import tokenizers

ARGUMENTS = {"height": 16, "width": 16, "guidance_scale": 3.0}


def _request(prompt: str, **more: Any) -> Request:
    return Request(arguments=ARGUMENTS | {"prompt": prompt} | more, seed=0)


def _watch() -> PromptWatch:
    return PromptWatch([object(), ByT5Tokenizer()])


def test_prompts_of_other_lengths_and_forwards_of_other_sizes_tell() -> None:
    watch = _watch()
    watch.saw(_request("a cat"), ("transformer", 1, 5))
    assert watch.lengths is None
    watch.saw(_request("a dog, running", guidance_scale=1.0), ("transformer", 1, 14))
    assert watch.lengths is not None


def test_sizes_that_come_from_something_else_are_not_laid_to_the_prompts() -> None:
    watch = _watch()
    watch.saw(_request("a cat"), ("transformer", 1, 16))
    watch.saw(_request("a dog, running", height=32), ("transformer", 1, 32))
    watch.saw(_request("a dog, running", image={"uri": "a.png"}), ("transformer", 1, 48))
    watch.saw(_request("a fox"), ("transformer", 1, 17))  # as long as the cat
    watch.saw(_request("no fox"), None)
    for prompt in ("a cat", "a dog, running"):
        watch.saw(_request(prompt), ("padded", 1, 512))
    assert watch.lengths is None


def test_rows_are_told_apart_by_the_tokens_of_all_their_prompts() -> None:
    lengths = pickle.loads(pickle.dumps(PromptLengths(ByT5Tokenizer())))  # as it comes from a worker
    prompts = [("a cat", None), ("a dog", "blurry"), ("猫", None), ("a fox", None)]
    nothing = pa.RecordBatch.from_pylist([{}])
    rows = [
        Row(
            row_id=str(i),
            shape="16x16",
            payload=Pending(_request(prompt, negative_prompt=negative), nothing, i, ""),
        )
        for i, (prompt, negative) in enumerate(prompts)
    ]
    shapes = [row.shape for row in by_prompt_lengths(rows, lengths)]
    assert [shapes.index(shape) for shape in shapes] == [0, 1, 2, 0]
    assert all(shape.startswith("16x16 ") for shape in shapes)


def test_a_negative_prompt_that_guidance_does_not_read_keeps_no_rows_apart() -> None:
    lengths = PromptLengths(ByT5Tokenizer())
    own = {"prompt": "a cat", "negative_prompt": "blurry"}
    guided, not_guided = {**own, "guidance_scale": 3.0}, {**own, "guidance_scale": 1.0}
    distilled = {**own, "guidance_scale": 3.5, "true_cfg_scale": 1.0}  # a scale that the network is told
    assert lengths([own, guided, not_guided, distilled]) == [(7, 6), (7, 6), (6,), (6,)]


@pytest.fixture
def apart() -> Iterator[Callable[[Any], CountedApart]]:
    """Gives what counts in a sandbox, and is ready."""
    with ExitStack() as stack:

        def started(tokenizer: Any) -> CountedApart:
            # Only what hangs is to reach its limit, on a busy machine too.
            limit_s = 0.5 if tokenizer is tokenizers.hanging else 60
            counted = CountedApart(pickle.dumps(PromptLengths(tokenizer)), max_counting_s=limit_s)
            stack.callback(counted.close)
            assert counted([{"prompt": "a"}]) is None
            while not counted.becomes_ready():
                time.sleep(0.01)
            return counted

        yield started


def test_a_sandbox_counts_as_the_tokenizer_does(apart: Callable[[Any], CountedApart]) -> None:
    rows: list[dict[str, Any]] = [{"prompt": "a cat"}, {"prompt": "猫", "negative_prompt": "\ud800"}, {}]
    counted = apart(tokenizers.bytes_of)
    assert counted(rows) == PromptLengths(tokenizers.bytes_of)(rows) == [(5,), (3, 3), ()]
    assert not counted.becomes_ready()


@pytest.mark.parametrize(
    ("tokenizer", "why"),
    [
        (tokenizers.hanging, "it takes more than 0"),
        (tokenizers.failing, "the tokenizer fails: KeyError"),
        (tokenizers.growing, "the tokenizer fails: MemoryError"),
        (tokenizers.crashing, "SIGSEGV"),
    ],
)
def test_a_tokenizer_that_does_harm_is_told_of_once_and_rows_go_on(
    tokenizer: Any, why: str, apart: Callable[[Any], CountedApart], caplog: pytest.LogCaptureFixture
) -> None:
    counted = apart(tokenizer)
    rows = [Row(row_id="1", shape="16x16", payload=Pending(_request("a cat"), None, 0, ""))]  # type: ignore[arg-type]
    for _ in range(2):
        assert by_prompt_lengths(rows, counted) == rows
    assert [why in message for message in caplog.messages] == [True]


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
