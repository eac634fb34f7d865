"""Prompts with wildcards of other programs are reported, as the model reads them as text."""

from __future__ import annotations

import pyarrow as pa

from framefleet.jobs.render.wildcards import Wildcards


def test_wildcards_are_counted_and_the_first_is_named() -> None:
    prompts = ["a fox", None, "a {red|blue} fox", "two __3d animal__s", "snake_case_x {a} ____"]
    found = Wildcards(["prompt"])
    found.add(0, pa.RecordBatch.from_pydict({"prompt": prompts[:2], "note": ["{a|b}"] * 2}))
    assert found.note() is None
    found.add(2, pa.RecordBatch.from_pydict({"prompt": prompts[2:]}))
    note = found.note()
    assert note and "2 rows" in note and "row 2 first" in note and "`sweep:`" in note


def test_texts_of_a_sweep_have_no_wildcards_left_but_maybe_loras() -> None:
    found = Wildcards(["prompt"], swept=["prompt"])
    for number, prompt, note in ((0, "a {red|blue} fox", ""), (1, "a <lora:style:0.8> fox", "1 row ")):
        found.add(number, pa.RecordBatch.from_pydict({"prompt": [prompt]}))
        assert note in (found.note() or "") and bool(found.note()) == bool(note)
