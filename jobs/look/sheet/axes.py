"""In: what records say in two columns. Out: the values along a grid's sides, and which clip in which cell."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from framefleet.pipeline.errors import JobError

MAX_AXIS_VALUES = 10_000  # that are remembered of a column, of which the first are shown


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """A record and its place in a grid."""

    record: Mapping[str, Any]
    row: int
    column: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Sides:
    """The values along a grid's sides."""

    rows: tuple[Hashable, ...]
    columns: tuple[Hashable, ...]


def side_of(first_seen: Mapping[Hashable, int], most: int) -> tuple[Hashable, ...]:
    """Return so many values, numbers by size, others by where they came first in the table."""
    values = sorted(first_seen, key=lambda value: first_seen[value])[:most]
    numbers = [value for value in values if isinstance(value, int | float)]
    return tuple(sorted(numbers) if len(numbers) == len(values) else values)


def note_value(first_seen: dict[Hashable, int], value: Hashable, position: int, name: str) -> None:
    """Remember where a value came first. Raises JobError where a column has too many."""
    first_seen[value] = min(position, first_seen.get(value, position))
    if len(first_seen) > MAX_AXIS_VALUES:
        raise JobError(
            f"column {name!r} has more than {MAX_AXIS_VALUES:,} values",
            "choose another column, or some rows by --where",
        )


def placed(
    records: Iterable[tuple[Mapping[str, Any], Hashable, Hashable]], sides: Sides
) -> tuple[list[Placed], int]:
    """Return the first record of each cell by its position, and how many more there were for these.

    records: each with its value along the rows and along the columns.
    """
    row_of = {value: place for place, value in enumerate(sides.rows)}
    column_of = {value: place for place, value in enumerate(sides.columns)}
    cells: dict[tuple[int, int], Mapping[str, Any]] = {}
    num_more = 0
    for record, row, column in records:
        if row not in row_of or column not in column_of:
            continue
        cell = row_of[row], column_of[column]
        num_more += cell in cells
        if cell not in cells or record["row_indices"] < cells[cell]["row_indices"]:
            cells[cell] = record
    found = [
        Placed(record=record, row=row, column=column)
        for (row, column), record in sorted(cells.items(), key=_cell)
    ]
    return found, num_more


def _cell(pair: tuple[tuple[int, int], Any]) -> tuple[int, int]:
    return pair[0]


def side_names(values: Sequence[Hashable], name: str) -> list[str]:
    """Return what stands beside a grid: texts as they are, numbers with their column's name."""
    return [value if isinstance(value, str) else f"{name} {caption_text(value)}" for value in values]


def caption_text(value: object) -> str:
    """Return a value as captions have it; a whole number may be larger than any other."""
    return f"{value:g}" if isinstance(value, float) else str(value)
