"""Columns of records that come from a row: the table's carried columns, and one for each argument.

Carried are all columns of the table without a meaning, unchanged, and those with a meaning whose name differs
from the argument's (`columns:` of the job).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from framefleet.pipeline.errors import TableError
from framefleet.pipeline.guards.redaction import public_url
from framefleet.pipeline.model.lora import ARGUMENT as LORA, loras_text
from framefleet.pipeline.model.specs.check import is_list, parsed_list
from framefleet.pipeline.model.specs.signature import PLACES, ArgumentKind
from framefleet.pipeline.outputs.parts.records import plain_name
from framefleet.pipeline.request import inputs_in, is_input, is_model
from framefleet.pipeline.rows.inputs.video_parts import part_text

_SOURCE = "source_"  # prefix for a column whose own name is taken by records
_NAMELESS = "unnamed"  # the name for a column without one, which neither SQL nor Lance allows
_TYPES: dict[ArgumentKind, pa.DataType] = {"bool": pa.bool_(), "int": pa.int64(), "ints": pa.int64()}
_TYPES |= {"float": pa.float64(), "floats": pa.float64()}
# The path or URL of an image or video, or a JSON list of several; the name in the job of a model.
_TYPES |= dict.fromkeys(("str", *PLACES, "model"), pa.string())
_INT64 = range(-(2**63), 2**63)


@dataclass(frozen=True, slots=True, kw_only=True)
class Carried:
    """names: carried column to its name in records. places: columns that name images and videos."""

    names: Mapping[str, str]
    places: frozenset[str] = frozenset()

    @property
    def renamed(self) -> list[tuple[str, str]]:
        """Return (column, name in records) of columns whose names differ."""
        return [(column, name) for column, name in self.names.items() if column != name]

    def schema(self, table: pa.Schema) -> pa.Schema:
        """Return the schema of the batches that `of` returns."""
        return pa.schema([table.field(column).with_name(name) for column, name in self.names.items()])

    def of(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return the carried columns of some rows, with secrets removed from URLs."""
        carried = batch.select([*self.names])
        if not self.names:
            return carried
        columns = public_cells(carried, self.places).columns
        return pa.RecordBatch.from_arrays(columns, schema=self.schema(batch.schema))


def carried_columns(
    schema: pa.Schema, read: Mapping[str, str], kinds: Mapping[str, ArgumentKind], taken: Collection[str]
) -> Carried:
    """Return which columns of a table are carried.

    read: the columns with a meaning, by what they mean. taken: names that records use for something else. If
    names differ only in case, the first column keeps its name. Raises TableError if the new name of a renamed
    column is in the table too.
    """
    has_its_name = {column for target, column in read.items() if target == column}
    carried = [name for name in schema.names if name not in has_its_name]
    own, others = {plain_name(name) for name in taken}, {plain_name(name) for name in carried}
    names: dict[str, str] = {}
    for column in carried:
        name = f"{_SOURCE}{column}" if plain_name(column) in own else column or _NAMELESS
        if plain_name(name) in own or (name != column and plain_name(name) in others):
            raise TableError(
                f"column {column!r} has a name that records use for something else (or another column's "
                f"name, as case does not count), and {name!r}, which it would be renamed to, exists too",
                "rename one of them in the table",
            )
        names[column] = name
        own.add(plain_name(name))
    places = frozenset(column for target, column in read.items() if kinds[target] in PLACES)
    return Carried(names=names, places=places)


def public_cells(batch: pa.RecordBatch, places: Collection[str]) -> pa.RecordBatch:
    """Return rows with secrets removed from URLs in these columns, which name files."""
    for at, field in enumerate(batch.schema):
        if field.name in places:
            cells = [public_cell(cell) for cell in batch.column(at).to_pylist()]
            batch = batch.set_column(at, field, pa.array(cells, field.type))
    return batch


def public_cell(cell: Any) -> Any:
    """Return a cell that names files with secrets removed from its URLs; a list in JSON stays JSON."""
    if isinstance(cell, Mapping):  # in a column of structs, each entry has all fields, and most are null
        return {key: public_cell(inner) for key, inner in cell.items() if inner is not None}
    if isinstance(cell, list | tuple):
        return [public_cell(part) for part in cell]
    if not isinstance(cell, str):
        return cell
    places = parsed_list(cell) if is_list(cell) else None
    return json.dumps(public_cell(places), ensure_ascii=False) if places else public_url(cell)


def _place(part: Mapping[str, Any]) -> str | dict[str, str]:
    """Return an entry of a list of media as a table writes it."""
    place = public_url(part["uri"])
    return {part["kind"]: place} if "kind" in part else place


def argument_fields(kinds: Mapping[str, ArgumentKind], taken: Collection[str]) -> pa.Schema:
    """Return a column for every argument that is a single number, text, or place.

    kinds: of all arguments that rows may have: the columns depend on the job, not on its rows. taken: names
    that records use for something else.
    """
    free = ((name, kind) for name, kind in kinds.items() if kind in _TYPES and name not in taken)
    return pa.schema([(name, _TYPES[kind]) for name, kind in free])


def argument_values(arguments: Mapping[str, Any], fields: pa.Schema) -> dict[str, Any]:
    """Return a row's cells; null if its argument is missing or of another type, e.g. a guidance schedule."""
    cells = {field.name: _cell(arguments.get(field.name), field.type) for field in fields}
    if LORA in cells and not isinstance(arguments.get(LORA), str):
        cells[LORA] = loras_text(arguments.get(LORA, {}))
    return cells


def _cell(value: Any, kind: pa.DataType) -> str | int | float | bool | None:
    if is_input(value):
        value = f"{public_url(value['uri'])}{part_text(value)}"
    elif kind == pa.string() and (inputs := inputs_in(value)):
        value = json.dumps([_place(part) for part in inputs], ensure_ascii=False)
    elif is_model(value):
        value = value["name"]
    if kind == pa.string():
        return value if isinstance(value, str) else None
    if kind == pa.bool_() or isinstance(value, bool):
        return value if kind == pa.bool_() and isinstance(value, bool) else None
    if kind == pa.int64():
        return value if isinstance(value, int) and value in _INT64 else None
    try:
        return float(value) if isinstance(value, int | float) else None
    except OverflowError:  # a huge whole number
        return None
