"""Columns that an export adds to a record's: stars and notes of picks, captions, missing prompts."""

from __future__ import annotations

import string
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from framefleet.jobs.export.choice import Pick
from framefleet.pipeline.errors import JobError
from framefleet.pipeline.guards.mistakes import did_you_mean
from framefleet.pipeline.outputs.layout import RECORDS
from framefleet.pipeline.outputs.parts.parts import rows_of
from framefleet.pipeline.outputs.parts.records import told_arguments

CAPTION, PROMPT_COLUMN, STARS, NOTE = "caption", "prompt", "stars", "note"


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionTemplate:
    """Texts between columns: each pair is a text and the column behind it; None at the end."""

    pairs: tuple[tuple[str, str | None], ...]

    @classmethod
    def parse(cls, text: str, known: Iterable[str]) -> CaptionTemplate:
        """Read a template such as "{prompt}, {style}". Raises JobError for an unknown column."""
        example = 'write it as "{prompt}, {style}", with {{ and }} for braces'
        try:
            parsed = list(string.Formatter().parse(text))
        except ValueError as error:
            raise JobError(f"caption: {text!r} is not a template: {error}", example) from None
        columns = {*known}
        for _, name, form, conversion in parsed:
            if name is not None and (form or conversion):
                raise JobError(f"caption: {name!r} has a format", "use only the name of a column")
            if name is not None and name not in columns:
                raise JobError(f"caption: there is no column {name!r}", did_you_mean(name, columns))
        return cls(pairs=tuple((before, name) for before, name, _, _ in parsed))

    @property
    def columns(self) -> list[str]:
        return [name for _, name in self.pairs if name is not None]

    def text(self, row: Mapping[str, Any]) -> str:
        """Return the caption of a row; a null is an empty text."""
        return "".join(before + _text(row, name) for before, name in self.pairs)


def prompt_of(row: Mapping[str, Any]) -> str:
    """Return what the row was rendered from; "" where that is not a text."""
    prompt = row.get(PROMPT_COLUMN)
    if prompt is None:  # of a version without the column
        prompt = told_arguments(row).get(PROMPT_COLUMN)
    return prompt if isinstance(prompt, str) else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """What is added. picks: by row_id. adds_prompt: the prompts, which the records have no column for."""

    picks: Mapping[str, Pick]
    template: CaptionTemplate | None
    adds_prompt: bool

    @property
    def names(self) -> tuple[str, ...]:
        """The columns, in the order in which they are added."""
        are_added = {
            PROMPT_COLUMN: self.adds_prompt,
            CAPTION: self.template is not None,
            STARS: any(pick.stars is not None for pick in self.picks.values()),
            NOTE: any(pick.note for pick in self.picks.values()),
        }
        return tuple(name for name, is_added in are_added.items() if is_added)

    def renamed(self, column: str) -> str:
        """Return the name of a record's column in the export."""
        return f"{column}_of_row" if column in self.names else column

    def add_to(self, table: pa.Table) -> pa.Table:
        """Return the table with these columns; of the records, one with such a name ends in `_of_row`."""
        read = {"row_id", PROMPT_COLUMN, "arguments", *(self.template.columns if self.template else [])}
        rows = rows_of(table.select([name for name in table.column_names if name in read]), RECORDS)
        table = table.rename_columns([self.renamed(name) for name in table.column_names])
        for name in self.names:
            kind = pa.int64() if name == STARS else pa.string()
            cells = [_encodable(self._cell(name, row)) for row in rows]
            table = table.append_column(name, pa.array(cells, kind))
        return table

    def _cell(self, name: str, row: Mapping[str, Any]) -> str | int | None:
        if name in (STARS, NOTE):
            pick = self.picks.get(row["row_id"], Pick())
            return pick.stars if name == STARS else pick.note
        if name == CAPTION and self.template is not None:
            return self.template.text({PROMPT_COLUMN: prompt_of(row), **row})
        return prompt_of(row)


def _encodable(cell: str | int | None) -> str | int | None:
    """Return a text of whole characters: JSON may hold halves of them, and Arrow none."""
    return cell.encode("utf-8", "replace").decode() if isinstance(cell, str) else cell


def _text(row: Mapping[str, Any], name: str | None) -> str:
    value = None if name is None else row[name]
    return "" if value is None else str(value)
