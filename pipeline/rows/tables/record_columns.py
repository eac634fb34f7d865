"""What records hold of a row besides what framefleet says: columns of the table, and one for each argument.

Of the table, all columns without a meaning, as they are; and those that `columns:` of the job gives one under
another name.
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

_SOURCE = "source_"  # begins the name that a column gets whose own is one of records
_NAMELESS = "unnamed"  # what a column without a name is called: neither SQL nor Lance knows such a name
_TYPES: dict[ArgumentKind, pa.DataType] = {"bool": pa.bool_(), "int": pa.int64(), "ints": pa.int64()}
_TYPES |= {"float": pa.float64(), "floats": pa.float64()}
# Of images and videos the path or URL, of several these as a JSON list; of a model its name in the job.
_TYPES |= dict.fromkeys(("str", *PLACES, "model"), pa.string())
_INT64 = range(-(2**63), 2**63)


@dataclass(frozen=True, slots=True, kw_only=True)
class Carried:
    """names: what records call each column that is carried. places: columns that name images and videos."""

    names: Mapping[str, str]
    places: frozenset[str] = frozenset()

    @property
    def renamed(self) -> list[tuple[str, str]]:
        """Return (column, name) of those that records cannot call what the table does."""
        return [(column, name) for column, name in self.names.items() if column != name]

    def schema(self, table: pa.Schema) -> pa.Schema:
        """Return what `of` gives of batches of the table."""
        return pa.schema([table.field(column).with_name(name) for column, name in self.names.items()])

    def of(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return what is carried of some rows. Of places what may be shown, without signatures in URLs."""
        cells = [
            pa.array([public_cell(cell) for cell in column.to_pylist()], column.type)
            if name in self.places
            else column
            for name, column in ((name, batch.column(name)) for name in self.names)
        ]
        if not cells:
            return batch.select([])
        return pa.RecordBatch.from_arrays(cells, schema=self.schema(batch.schema))


def carried_columns(
    schema: pa.Schema, read: Mapping[str, str], kinds: Mapping[str, ArgumentKind], taken: Collection[str]
) -> Carried:
    """Return what of a table's columns is carried.

    read: the columns with a meaning, by what they mean. taken: names that records have for something else.
    Of columns whose names differ in case alone, the first keeps its name. Raises TableError where a table has
    both a column of such a name and the one that it would get.
    """
    has_its_name = {column for target, column in read.items() if target == column}
    carried = [name for name in schema.names if name not in has_its_name]
    own, others = {plain_name(name) for name in taken}, {plain_name(name) for name in carried}
    names: dict[str, str] = {}
    for column in carried:
        name = f"{_SOURCE}{column}" if plain_name(column) in own else column or _NAMELESS
        if plain_name(name) in own or (name != column and plain_name(name) in others):
            raise TableError(
                f"column {column!r} has the name of a column that every record gets (or of another "
                f"one, as case does not count), and {name!r}, which it would be kept as, is there too",
                "rename one of them in the table",
            )
        names[column] = name
        own.add(plain_name(name))
    places = frozenset(column for target, column in read.items() if kinds[target] in PLACES)
    return Carried(names=names, places=places)


def public_cell(cell: Any) -> Any:
    """Return a cell that names files without what is secret in URLs; JSON text of a list stays one."""
    if isinstance(cell, Mapping):  # in a column of structs, every entry has all fields, and most are null
        return {key: public_cell(inner) for key, inner in cell.items() if inner is not None}
    if isinstance(cell, list | tuple):
        return [public_cell(part) for part in cell]
    if not isinstance(cell, str):
        return cell
    places = parsed_list(cell) if is_list(cell) else None
    return json.dumps(public_cell(places), ensure_ascii=False) if places else public_url(cell)


def _place(part: Mapping[str, Any]) -> str | dict[str, str]:
    """Return an entry of a list of media as a table has it."""
    place = public_url(part["uri"])
    return {part["kind"]: place} if "kind" in part else place


def argument_fields(kinds: Mapping[str, ArgumentKind], taken: Collection[str]) -> pa.Schema:
    """Return a column for every argument that is one number, text, or place.

    kinds: of the arguments that rows may have, whether they do or not: the columns are of the job, not of its
    rows. taken: names that records have for something else.
    """
    free = ((name, kind) for name, kind in kinds.items() if kind in _TYPES and name not in taken)
    return pa.schema([(name, _TYPES[kind]) for name, kind in free])


def argument_values(arguments: Mapping[str, Any], fields: pa.Schema) -> dict[str, Any]:
    """Return a row's cells: null where it has no argument of that type, e.g. a schedule of guidance."""
    cells = {field.name: _cell(arguments.get(field.name), field.type) for field in fields}
    if LORA in cells and not isinstance(arguments.get(LORA), str):
        cells[LORA] = loras_text(arguments.get(LORA, {}))
    return cells


def _cell(value: Any, kind: pa.DataType) -> str | int | float | bool | None:
    if is_input(value):
        value = f"{public_url(value['uri'])}{part_text(value)}"
    elif kind == pa.string() and (inputs := inputs_in(value)):
        value = json.dumps([_place(one) for one in inputs], ensure_ascii=False)
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
    except OverflowError:  # a whole number of pages
        return None
