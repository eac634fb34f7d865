"""The columns that an export adds to records: stars and notes of picked rows, and captions."""

from __future__ import annotations

import string
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import pyarrow as pa

from framefleet.api.errors import JobError
from framefleet.api.outputs import RECORDS, fix_of_missing, rows_of
from framefleet.plugins.picks import Pick

CAPTION, PROMPT_COLUMN, STARS, NOTE = "caption", "prompt", "stars", "note"


# Pairs of a text and the column after it (None at the end).
CaptionTemplate: TypeAlias = tuple[tuple[str, str | None], ...]


def read_template(text: str, known: Collection[str]) -> CaptionTemplate:
    """Read a template such as "{prompt}, {style}". Raises JobError for an unknown column."""
    example = 'write it as "{prompt}, {style}", with {{ and }} for braces'
    try:
        text.encode()  # a command line may contain bytes that are not text
        parsed = list(string.Formatter().parse(text))
    except ValueError as error:
        raise JobError(f"caption: {text!r} is not a template: {error}", example) from None
    for _, name, form, conversion in parsed:
        if name is not None and (form or conversion):
            problem = f"caption: {name!r} has a format, and format specs like {{x:.2f}} are not allowed"
            raise JobError(problem, "use only the name of a column")
        if name is not None and name not in known:
            raise JobError(f"caption: there is no column {name!r}", fix_of_missing(name, known))
    return tuple((before, name) for before, name, _, _ in parsed)


def prompt_of(row: Mapping[str, Any]) -> str:
    """Return the prompt of a row, or "" if it is not text."""
    prompt = row.get(PROMPT_COLUMN)
    return prompt if isinstance(prompt, str) else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """The columns to add. picks: by row_id."""

    picks: Mapping[str, Pick]
    template: CaptionTemplate | None

    @property
    def names(self) -> tuple[str, ...]:
        """The added columns, in order."""
        are_added = {
            CAPTION: self.template is not None,
            STARS: any(pick.stars is not None for pick in self.picks.values()),
            NOTE: any(pick.note for pick in self.picks.values()),
        }
        return tuple(name for name, is_added in are_added.items() if is_added)

    @property
    def caption_columns(self) -> list[str]:
        return [name for _, name in self.template or () if name is not None]

    @property
    def repeated(self) -> str | None:
        """The column that the captions merely repeat, if any."""
        texts = [pair for pair in self.template or () if pair != ("", None)]
        return texts[0][1] if len(texts) == 1 and not texts[0][0] else None

    def renamed(self, column: str) -> str:
        """Return the name of a record's column in the export."""
        return f"{column}_of_row" if column in self.names else column

    def add_to(self, table: pa.Table) -> pa.Table:
        """Return the table with these columns. A column of the records with the same name gets `_of_row`."""
        read = {"row_id", *self.caption_columns}
        rows = rows_of(table.select([name for name in table.column_names if name in read]), RECORDS)
        table = table.rename_columns([self.renamed(name) for name in table.column_names])
        for name in self.names:
            kind = pa.int64() if name == STARS else pa.string()
            table = table.append_column(name, pa.array([self._cell(name, row) for row in rows], kind))
        return table

    def _cell(self, name: str, row: Mapping[str, Any]) -> str | int | None:
        if name == CAPTION:  # nulls become empty text
            cells = ((before, name and row[name]) for before, name in self.template or ())
            return "".join(before + ("" if cell is None else str(cell)) for before, cell in cells)
        pick = self.picks.get(row["row_id"], Pick())
        return pick.stars if name == STARS else pick.note
