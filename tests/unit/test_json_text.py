"""JSON that anybody may have written: read, or refused as a ValueError."""

from __future__ import annotations

import pytest

from framefleet.pipeline.guards.json_text import MAX_DEPTH, parse_json


def test_plain_values_are_read() -> None:
    assert parse_json(b'{"a": [1, {"b": null}], "c": "[[["}') == {"a": [1, {"b": None}], "c": "[[["}


def test_as_many_levels_as_allowed_are_read_and_one_more_is_refused() -> None:
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
