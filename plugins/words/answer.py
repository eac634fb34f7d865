"""From the form of an answer to its JSON Schema, and from what a model answered to a cell.

A model may answer anything, and what it answers is stored: it is bounded, and of the type that was asked for.
"""

from __future__ import annotations

from typing import Any

from framefleet.pipeline.rows.tables.row_cells import MAX_TEXT
from framefleet.plugins.words.section import AnswerSection


def answer_schema(answer: AnswerSection | None) -> dict[str, Any]:
    """Return the JSON Schema of an answer. answer: None for a text."""
    kind: dict[str, Any] = {"type": "string"}
    if answer and answer.number:
        kind = {"type": "number", "minimum": answer.number[0], "maximum": answer.number[1]}
    elif answer and answer.choice:
        kind["enum"] = answer.choice
    return {
        "type": "object",
        "properties": {"answer": kind},
        "required": ["answer"],
        "additionalProperties": False,
    }


def checked_answer(answer: AnswerSection | None, value: object) -> float | str:
    """Return an answer as its cell. answer: None for a text. Raises ValueError for one of another form."""
    if answer and answer.number:
        low, high = answer.number
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError("it is not a number")
        if not low <= value <= high:  # nor is NaN
            raise ValueError(f"it is not in [{low:g}, {high:g}]")
        return float(value)
    if not isinstance(value, str) or not value.strip():
        raise ValueError("it is not a text")
    if answer and answer.choice and value not in answer.choice:
        raise ValueError(f"it is not one of {', '.join(answer.choice)}")
    if (size := len(value.encode())) > MAX_TEXT:  # no table may have it; half a character raises ValueError
        raise ValueError(f"it has {size:,} bytes, and a text may have {MAX_TEXT:,}")
    return value.strip()
