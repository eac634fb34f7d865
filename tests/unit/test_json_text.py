"""JSON that anybody may have written: read, or refused as a ValueError."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, strategies as st

from framefleet.pipeline.guards.json_text import (
    MAX_DEPTH,
    Blank,
    JsonForm,
    canonical_json,
    parse_json,
    spell,
)


def test_plain_values_of_as_many_levels_as_allowed_are_read() -> None:
    assert parse_json(b'{"a": [1, {"b": null}], "c": "[[["}') == {"a": [1, {"b": None}], "c": "[[["}
    assert parse_json("[" * MAX_DEPTH + "]" * MAX_DEPTH)
    with pytest.raises(ValueError, match="levels deep"):
        parse_json("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1))


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\xff\xfe\xfd",
        b"{",
        "[" * 100_000,
        '{"a":' * 100_000,
        "[" * 100_000 + "]" * 100_000,
        "9" * 10_000,
    ],
)
def test_damage_of_every_kind_is_a_value_error(text: str | bytes) -> None:
    with pytest.raises(ValueError):
        parse_json(text)


def value(prompt: Any, seed: Any, rest: Any) -> dict[str, Any]:
    return {"seed": seed, "arguments": {"prompt": prompt, "rest": rest}, "again": [prompt, "{}", "%s"]}


@given(prompt=st.text(), seed=st.integers(0, 2**63 - 1), rest=st.text())
def test_a_filled_form_is_the_whole_value(prompt: str, seed: int, rest: str) -> None:
    form = JsonForm(value(Blank(1), Blank(0), rest))
    assert form.filled([str(seed), spell(prompt)]) == canonical_json(value(prompt, seed, rest))
    assert JsonForm(["a", Blank(1)]).filled([spell(None), spell("b")]) == '["a","b"]', "a text too many"
    with pytest.raises(TypeError, match="object is not JSON"):
        JsonForm([object()])
