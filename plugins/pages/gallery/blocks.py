"""Write the rows that a gallery shows as columns and blocks of rows, for its page to load.

A block is JSON in a script without code, since a page opened from a folder may load scripts, but no other
data. Names of blocks depend on their content, so that a page never gets a block of a later gallery, and
unchanged blocks are not written again. Records are not trusted: only paths that framefleet uses are shown.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from framefleet.api.errors import JobError
from framefleet.api.outputs import (
    FAILURE_FIELDS,
    RECORD_FIELDS,
    RECORDS,
    Output,
    Store,
    preview_path,
    recorded_path,
    told_arguments,
)
from framefleet.pipeline.model.lora import ARGUMENT as LORA, loras_text
from framefleet.pipeline.outputs.layout import PREVIEWS

_MAX_ARGUMENTS = 200  # with a column; no call has as many, but untrusted rows may have any number
_OURS = {*RECORD_FIELDS.names, *FAILURE_FIELDS.names}


def shown_records(store: Store) -> Iterator[pa.Table]:
    """Yield the records, with a column for each scalar argument; paths are those of files of ours."""
    previews: set[str] | None = None
    argument_names: set[str] = set()
    column_names = Output(store).schema().names  # maybe without the two
    columns = dict.fromkeys([*column_names, "path", "preview_path"])
    for table in Output(store).records(list(columns)):
        rows = table.select(["row_id", "uri", "path", "preview_path"]).to_pylist()
        if previews is None and any(row["preview_path"] is None for row in rows):
            previews = set(store.list(PREVIEWS))  # made later, or by a worker that was cut off
        places: list[tuple[str | None, str | None]] = []  # of clips and their stills, which may be nobody's
        for row in rows:
            try:
                clip = recorded_path(row, RECORDS)
            except JobError:
                places.append((None, None))
            else:
                still = preview_path(clip)
                is_there = still == row["preview_path"] or still in (previews or ())
                places.append((clip, still if is_there else None))
        for number, name in enumerate(("path", "preview_path")):
            at = table.column_names.index(name)
            table = table.set_column(at, name, pa.array([place[number] for place in places], pa.string()))
        table = table.drop_columns(["uri"])  # where it was first; `path` says where it is
        yield _with_arguments(table, argument_names)


def shown_failures(store: Store) -> Iterator[pa.Table]:
    """Yield the rows that failed and have no record, with every scalar argument as a column."""
    argument_names: set[str] = set()
    for table in Output(store).failure_tables():
        yield _with_arguments(table, argument_names)


def roles_in(table: pa.Table) -> dict[str, Role]:
    """Return the role of each column: an argument of the pipeline, framefleet's own, or carried along."""
    arguments = {name for text in table["arguments"].unique().to_pylist() for name, _ in _scalars(text)}
    arguments |= {"seed", LORA}
    return {
        name: "argument" if name in arguments else "record" if name in _OURS else "carried"
        for name in table.column_names
    }


def _with_arguments(table: pa.Table, named: set[str]) -> pa.Table:
    """Return the table with a column for each scalar of `arguments` that it has none for.

    named: those that tables before this one got; these are added to it.
    """
    coded = table["arguments"].combine_chunks().dictionary_encode()
    arguments_of = [dict(_scalars(text)) for text in coded.dictionary.to_pylist()]
    names = {name: None for arguments in arguments_of for name in arguments}
    for name in names:
        if name not in table.column_names and (name in named or len(named) < _MAX_ARGUMENTS):
            named.add(name)
            cells = [arguments.get(name) for arguments in arguments_of]
            try:
                values = pa.array(cells)
            except (pa.ArrowException, OverflowError):  # of several types: as text
                values = pa.array([None if cell is None else str(cell) for cell in cells], pa.string())
            table = table.append_column(name, values.take(coded.indices))
    return table


def _scalars(arguments: str) -> Iterator[tuple[str, Any]]:
    for name, value in told_arguments({"arguments": arguments}).items():
        if name == LORA:
            with suppress(TypeError, KeyError, AttributeError):  # of no form of ours: it may be anybody's
                value = loras_text(value)
        if isinstance(value, str | int | float):
            yield _whole(name), _whole(value) if isinstance(value, str) else value


def _whole(text: str) -> str:
    """Return text without halves of characters, which JSON may have and Arrow has not."""
    return text.encode("utf-8", "replace").decode()


BLOCK_ROWS = 4096  # about 100 KB per column, which loads quickly; 245 blocks for a million rows
MAX_CELL = 1 << 14  # characters of a cell; a few pages
MAX_DISTINCT = 1000  # counted values; columns with more cannot be axes
_MAX_LISTED = 24  # values of a column listed with their counts
_MAX_AT_ONCE = 1 << 12  # characters of values that the page has from the start
_SAFE_INTEGER = 1 << 53  # JavaScript's numbers are doubles; larger ones become text
_UNREADABLE = "cannot be read"
_DIGITS = 6  # of seconds that were measured
_UNSAFE = str.maketrans({"<": "\\u003c", "'": "\\u0027"})  # json.dumps leaves nothing else beyond ASCII

ColumnKind = Literal["number", "text", "time", "json"]
Role = Literal["argument", "carried", "record"]


@dataclass(slots=True)
class ColumnBlocks:
    """One column. blocks: for each block the name of its script, or the one value that all its rows have."""

    name: str
    kind: ColumnKind
    role: Role
    blocks: list[dict[str, Any]] = field(default_factory=list)
    values: Counter[Any] | None = field(default_factory=Counter)  # None: too many
    least: Any = None
    most: Any = None

    def described(self) -> dict[str, Any]:
        """Return what the page knows of it at once."""
        described: dict[str, Any] = {"name": self.name, "kind": self.kind, "role": self.role}
        if self.values is not None:
            described["distinct"] = len(self.values)
            if len(self.values) <= _MAX_LISTED and sum(map(_length, self.values)) <= _MAX_AT_ONCE:
                described["values"] = sorted(self.values.items(), key=lambda item: (-item[1], str(item[0])))
        return described | {"least": self.least, "most": self.most, "blocks": self.blocks}


class TableBlocks:
    """A table's columns, which may grow in number. put: takes each script, by its name."""

    def __init__(self, put: Callable[[str, bytes], None]) -> None:
        self._put = put
        self._columns: dict[str, ColumnBlocks] = {}
        self._num_blocks = self.num_rows = 0

    def add(self, table: pa.Table, roles: Mapping[str, Role]) -> None:
        names = [name for name in table.column_names if name not in self._columns]
        for name in names:
            blocks = [{"all": None} for _ in range(self._num_blocks)]
            column = ColumnBlocks(name, _kind_of(table.schema.field(name).type), roles[name], blocks)
            if self.num_rows and column.values is not None:
                column.values[None] = self.num_rows
            self._columns[name] = column
        for column in self._columns.values():
            is_there = column.name in table.column_names
            cells = table[column.name] if is_there else pa.nulls(len(table), pa.string())
            column.blocks.append(self._written(column, _plain(cells, column.name)))
        self._num_blocks, self.num_rows = self._num_blocks + 1, self.num_rows + len(table)

    def described(self) -> dict[str, Any]:
        return {"rows": self.num_rows, "columns": [column.described() for column in self._columns.values()]}

    def _written(self, column: ColumnBlocks, cells: pa.Array) -> dict[str, Any]:
        coded = cells.dictionary_encode("encode")
        values = coded.dictionary.to_pylist()
        if column.values is not None:
            counts = pc.value_counts(coded.indices)
            for code, count in zip(counts.field("values"), counts.field("counts"), strict=True):
                column.values[_json_value(values[code.as_py()])] += count.as_py()
                if len(column.values) > MAX_DISTINCT:
                    column.values = None
                    break
        present = [value for value in values if value is not None]
        if column.kind in ("number", "time") and present:
            try:
                present = list(map(float, present)) if column.kind == "number" else present
                least, most = min(present), max(present)
                column.least = least if column.least is None else min(column.least, least)
                column.most = most if column.most is None else max(column.most, most)
            except (TypeError, ValueError):  # an argument that is text in some rows
                column.kind, column.least, column.most = "json", None, None
        shown = [_json_value(value) for value in values]
        if len(shown) == 1 and _length(shown[0]) <= _MAX_AT_ONCE:
            return {"all": shown[0]}
        codes = coded.indices.to_pylist()
        content = [[shown[code] for code in codes], None] if 2 * len(shown) > len(codes) else [shown, codes]
        text = json.dumps(content, separators=(",", ":"))
        name = hashlib.sha256(text.encode()).hexdigest()[:20]
        self._put(name, script("block", name, text))
        return {"file": name}


def script(function: str, *texts: str) -> bytes:
    """Return a script that only calls a function of the page with texts.

    JSON is also passed as text, which is faster to read, and makes `__proto__` an ordinary key.
    """
    quoted = ",".join(f"'{text.replace(chr(92), chr(92) * 2).translate(_UNSAFE)}'" for text in texts)
    return f"framefleet.{function}({quoted});\n".encode("ascii")


# Possessive: otherwise `re` takes a hundred bytes of memory for each byte of a text, to be able to go back.
_TEXT = rb"'(?:[ -&(-\[\]-~]++|\\[ -~])*+'"
_SCRIPT = re.compile(rb"framefleet\.[a-z]+\(%b(?:,%b)*+\);\n" % (_TEXT, _TEXT))


def is_script(content: bytes) -> bool:
    """Whether a file has the form of `script`. If so, it is harmless, whoever wrote it."""
    return _SCRIPT.fullmatch(content) is not None


def in_blocks(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Yield the same rows, `BLOCK_ROWS` at a time."""
    waiting: list[pa.Table] = []
    num_waiting = 0
    for table in tables:
        waiting.append(table)
        num_waiting += len(table)
        while num_waiting >= BLOCK_ROWS:
            joined = _joined(waiting)
            yield joined.slice(0, BLOCK_ROWS)
            waiting, num_waiting = [joined.slice(BLOCK_ROWS)], num_waiting - BLOCK_ROWS
    if num_waiting:
        yield _joined(waiting)


def _joined(tables: Sequence[pa.Table]) -> pa.Table:
    """Return one table. Arguments without a column of their own may be numbers in one and text in another."""
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except (pa.ArrowTypeError, pa.ArrowInvalid):  # or float64 does not hold a whole number
        kinds = [{field.name: field.type for field in table.schema} for table in tables]
        names = {name for one in kinds for name in one}
        mixed = {name for name in names if len({one[name] for one in kinds if name in one}) > 1}
        return pa.concat_tables([_texts_in(table, mixed) for table in tables], promote_options="permissive")


def _texts_in(table: pa.Table, names: Collection[str]) -> pa.Table:
    for number, name in enumerate(table.column_names):
        if name in names and not pa.types.is_nested(table[name].type):
            table = table.set_column(number, name, table[name].cast(pa.string()))
    return table


def _kind_of(kind: pa.DataType) -> ColumnKind:
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return "number"
    if pa.types.is_temporal(kind):
        return "time"
    return "json" if pa.types.is_nested(kind) else "text"


def _plain(cells: pa.ChunkedArray | pa.Array, name: str) -> pa.Array:
    """Return cells as numbers, booleans or text of bounded length."""
    array = cells.combine_chunks() if isinstance(cells, pa.ChunkedArray) else cells
    kind = array.type
    if pa.types.is_dictionary(kind):
        array, kind = array.cast(kind.value_type), kind.value_type
    if pa.types.is_floating(kind):
        array = array.cast(pa.float64())
        array = pc.if_else(pc.is_finite(array), array, None)  # JSON has no others
        with suppress(pa.ArrowInvalid):  # of a number near the largest
            array = pc.round(array, _DIGITS) if name.endswith("_s") else array
        return array
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        return array
    if pa.types.is_decimal(kind):
        return array.cast(pa.float64())
    if pa.types.is_timestamp(kind):
        zone = array.type.tz
        try:
            array = array.cast(pa.timestamp(array.type.unit, "UTC")) if zone else array
            return pc.strftime(array, "%Y-%m-%dT%H:%M:%SZ" if zone else "%Y-%m-%dT%H:%M:%S")
        except pa.ArrowInvalid:  # of a zone that is none
            return pa.array([_UNREADABLE] * len(array), pa.string())
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind):
        return pc.binary_join_element_wise(pc.binary_length(array).cast(pa.string()), "bytes", " ")
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return pc.utf8_slice_codeunits(array.cast(pa.string()), 0, MAX_CELL + 1)
    return pa.array([_as_text(cell) for cell in array], pa.string())


def _as_text(cell: pa.Scalar) -> str | None:
    try:
        value = cell.as_py()
    except (ValueError, OverflowError, pa.ArrowException):  # a time that Python does not have
        return _UNREADABLE
    is_nested = isinstance(value, list | dict)
    text = json.dumps(value, default=str, ensure_ascii=False) if is_nested else str(value)
    return None if value is None else text[: MAX_CELL + 1]


def _json_value(value: Any) -> Any:
    is_unsafe = type(value) is int and abs(value) > _SAFE_INTEGER
    return str(value) if is_unsafe else value


def _length(value: Any) -> int:
    return len(str(value))
