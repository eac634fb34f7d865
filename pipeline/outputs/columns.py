"""A column that plugins add to records: one function, `(frames, record) -> value`.

Workers call it in the background while clips are rendered, and commands call it later
(`plugins/columns/fill.py`), as does the driver if another service answers.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from framefleet.pipeline.errors import EndpointError, FramefleetError, StoreError, message_of, shown
from framefleet.pipeline.guards.redaction import public_text
from framefleet.pipeline.outputs.frames.frames import Frames, Pictures, plain_frames
from framefleet.pipeline.outputs.parts.records import DIGEST, MAY_COME_LATER, with_arguments
from framefleet.pipeline.request import quickly_pickled

CellValue = bool | int | float | str | None
REFUSED = "{}_refused"  # the column that says why a clip has no value
_NOT_YET = "not answered: "  # begins a reason that holds for one run
_MAX_MESSAGE = 300  # characters of what a function said

log = logging.getLogger(__name__)


class NoValue(Exception):
    """A column has no value for this clip; the text says why. is_final: nor will it have one later."""

    is_final = True


def refusal(error: Exception) -> str:
    """Return why a clip has no value, for its column `REFUSED`."""
    return ("" if getattr(error, "is_final", True) else _NOT_YET) + why_missing(error)


def is_for_good(reason: str | None) -> bool:
    """Return whether a clip will never have a value, by what `REFUSED` says."""
    return bool(reason) and not str(reason).startswith(_NOT_YET)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipColumn:
    """A column of records, and where its values come from. Pickled to the workers."""

    name: str
    type: pa.DataType
    section: str  # of the job
    name_key: str = ""  # the key of the job that sets its name
    # Called with a clip's frames, (T, H, W, 3) uint8, and its record with the row's arguments. Whatever it
    # raises is about this clip, except errors that `may_answer_later`. None: the plugin fills in the column.
    function: Callable[..., object] | None
    takes_inputs: bool = False  # the function's `inputs`: an `Inputs`, which opens what the row names
    needs_record: bool = True  # more columns of the record than the row's arguments
    digest: str | None = None  # SHA-256 of what its values come from besides the clip, e.g. a question
    prepare: Callable[[], None] | None = None  # loads what it needs, once per worker and before its first row
    module: str | None = None  # of the user's function that it calls, which other machines need

    # Whether clips get it after they have their records: answers of another service, which may be slow. It is
    # null until then, and code that chooses among clips waits.
    is_late: bool = False
    thinned: Callable[[Frames], Frames] | None = None  # the frames to keep for its function while it waits
    where: str | None = None  # in SQL, on records: only these clips, once all rows have ended
    num_parallel: int = 1  # clips that it is asked about at once
    end: Callable[[], None] | None = None  # ends what is under way, from any thread
    placeholders: tuple[str, ...] = ()  # columns and arguments that it names

    @property
    def field(self) -> pa.Field:
        return late_field(self.name, self.type, self.digest)


@quickly_pickled
@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnValues:
    """What the record of one clip has in the columns of plugins."""

    values: Mapping[str, CellValue] = field(default_factory=dict)
    errors: Mapping[str, str] = field(default_factory=dict)  # why a value is missing


def measure(
    columns: Iterable[ClipColumn],
    pictures: Pictures | None,
    record: Mapping[str, Any],
    *,
    begin: Callable[[ClipColumn], None] = lambda column: None,
) -> ColumnValues:
    """Return a rendered clip's values; for sound alone, all are None. Raises nothing.

    pictures: alpha is laid over black, values outside [0, 1] are clipped, and layers count as frames. record:
    its columns. begin: called before each column.
    """
    columns = tuple(columns)
    values = dict.fromkeys(column.name for column in columns)
    errors: dict[str, str] = {}
    if pictures is None:
        return ColumnValues(values=values)
    try:
        frames, full_record = plain_frames(pictures), with_arguments(record)
    except Exception as error:  # no memory for a second copy: the clip is there
        return ColumnValues(values=values, errors=dict.fromkeys(values, why_missing(error)))
    for column in columns:
        begin(column)
        try:
            values[column.name] = cell_asked_for(column, frames, full_record)
        except (Exception, SystemExit) as error:
            log.info("%s of row %s", column.name, record.get("row_id"), exc_info=True)
            errors[column.name] = why_missing(error)
    return ColumnValues(values=values, errors=errors)


def cell_asked_for(column: ClipColumn, frames: Frames | None, record: Mapping[str, Any]) -> CellValue:
    """Return a clip's cell of a column. record: with the row's arguments. Raises what the function raises."""
    assert column.function is not None, "a plugin that fills in a column itself does not ask for it"
    value: Any = column.function(frames, record)
    cell = cell_of(column.field, value)
    if isinstance(cell, float) and not math.isfinite(cell):
        raise ValueError(f"it returned {value}")
    return cell


def why_missing(error: BaseException) -> str:
    """Return the message for an error of a column's function."""
    message = error.problem if isinstance(error, FramefleetError) else message_of(error)
    if not message or not isinstance(error, FramefleetError | NoValue | OSError):
        message = f"{type(error).__name__}: {message}"
    return public_text(message)[:_MAX_MESSAGE]


def may_answer_later(error: Exception) -> bool:
    """Return whether an error of a function, or of reading its clip, means that nobody answers now."""
    return isinstance(error, EndpointError | OSError) or (isinstance(error, StoreError) and error.may_pass)


def late_field(name: str, kind: pa.DataType, digest: str | None = None) -> pa.Field:
    """Return a column that may be filled in later. digest: of what its values come from, e.g. a question."""
    return pa.field(name, kind).with_metadata(MAY_COME_LATER | ({DIGEST: digest.encode()} if digest else {}))


def late_columns(columns: Iterable[ClipColumn]) -> list[ClipColumn]:
    """Return the columns that code which chooses among clips has to wait for."""
    return [column for column in columns if column.is_late and column.function]


def refusals_of(columns: Iterable[ClipColumn]) -> list[str]:
    """Return the names of the columns that say why clips have no value in late ones of these."""
    return [REFUSED.format(column.name) for column in late_columns(columns)]


def refusal_fields(columns: Iterable[ClipColumn]) -> Iterator[pa.Field]:
    """Yield the columns that say why clips will never have a value in one of these."""
    for column in columns:
        yield late_field(REFUSED.format(column.name), pa.string())


def cell_of(column: pa.Field, value: object) -> CellValue:
    """Return a value as the cell of a column. Raises ValueError for one that the column would change.

    In a column of floats, numbers are rounded to its precision.
    """
    if value is None:
        return None
    with suppress(pa.ArrowException, ArithmeticError, TypeError, ValueError):
        plain: Any = value.item() if hasattr(value, "item") else value  # of NumPy or torch
        cell: Any = pa.scalar(plain, column.type).as_py()
        if pa.types.is_floating(column.type):
            is_same = not isinstance(plain, bool) and math.isfinite(cell) == math.isfinite(plain)
        else:
            is_same = cell == plain
        if is_same:
            return cell
    raise ValueError(f"the column {column.name!r} is {column.type}, which cannot hold {shown(value)}")


def fitting_cells(columns: pa.Schema, values: Mapping[str, CellValue]) -> dict[str, CellValue]:
    """Return the cells of these columns; None for what a column cannot hold, as values may be anybody's."""
    cells: dict[str, CellValue] = dict.fromkeys(columns.names)
    for column in columns:
        with suppress(ValueError):
            cells[column.name] = cell_of(column, values.get(column.name))
    return cells
