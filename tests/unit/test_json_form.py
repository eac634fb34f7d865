"""Forms of canonical JSON: filled in, each is what the whole value is spelled as."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, strategies as st

from framefleet.pipeline.guards.json_text import Blank, JsonForm, canonical_json, spell


def value(prompt: Any, seed: Any, rest: Any) -> dict[str, Any]:
    return {"seed": seed, "arguments": {"prompt": prompt, "rest": rest}, "again": [prompt, "{}", "%s"]}


@given(prompt=st.text(), seed=st.integers(0, 2**63 - 1), rest=st.text())
def test_a_filled_form_is_the_whole_value(prompt: str, seed: int, rest: str) -> None:
    form = JsonForm(value(Blank(1), Blank(0), rest))
    assert form.filled([str(seed), spell(prompt)]) == canonical_json(value(prompt, seed, rest))


def test_texts_for_which_there_is_no_blank_are_left_out() -> None:
    assert JsonForm(["a", Blank(1)]).filled([spell(None), spell("b")]) == '["a","b"]'


def test_what_is_no_json_is_refused() -> None:
    with pytest.raises(TypeError, match="object is not JSON"):
        JsonForm([object()])
