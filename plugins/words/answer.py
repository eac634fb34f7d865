"""Make the JSON Schema for an answer, and check an answer before it becomes a cell.

A model may answer anything. Only answers of limited size and of the right type are stored.
"""

from __future__ import annotations

from typing import Any

from framefleet.pipeline.rows.tables.row_cells import MAX_TEXT
from framefleet.plugins.words.section import AnswerSection


def answer_schema(answer: AnswerSection | None) -> dict[str, Any]:
    """Return the JSON Schema of an answer. answer: None for text."""
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
    """Return an answer as a cell. answer: None for text. Raises ValueError for an invalid answer."""
    if answer and answer.number:
        low, high = answer.number
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError("it is not a number")
        if not low <= value <= high:  # also refuses NaN
            raise ValueError(f"it is not in [{low:g}, {high:g}]")
        return float(value)
    if not isinstance(value, str) or not value.strip():
        raise ValueError("it is not text")
    if answer and answer.choice and value not in answer.choice:
        raise ValueError(f"it is not one of {', '.join(answer.choice)}")
    if (size := len(value.encode())) > MAX_TEXT:  # the limit of tables; a lone surrogate raises ValueError
        raise ValueError(f"it has {size:,} bytes, but at most {MAX_TEXT:,} are allowed")
    return value.strip()
