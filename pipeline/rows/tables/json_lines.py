"""From lines of JSON, each one object, to record batches of one schema.

Not by Arrow's own reader of JSON, which ends the process for some lines, as `null` or deep nesting.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import IO, Any

import pyarrow as pa

from framefleet.pipeline.guards.json_text import canonical_json, parse_json
from framefleet.pipeline.model.specs.signature import ArgumentKind

INFERRED_BYTES = 1 << 20  # from which the types are taken, as Arrow takes them from CSV
MAX_LINE = 16 << 20
BATCH_ROWS, BATCH_BYTES = 1024, 4 << 20
MAX_KEYS = 10_000
# Before a cell that should be text and is a number, a list or an object: half a character, so that `readable`
# refuses the row.
NO_TEXT = "\ud800"
_TEXTS: set[ArgumentKind] = {"str", "image", "video", "model"}
BOM = b"\xef\xbb\xbf"
_SCALARS: dict[pa.DataType, set[type]] = {
    pa.string(): {str},
    pa.int64(): {int},
    pa.float64(): {int, float},
    pa.bool_(): {bool},
    pa.null(): set(),
}


class JsonLines:
    """Iterates over record batches. Raises ValueError, with the line, for what does not fit the schema.

    schema: None takes it from the first lines. arguments: columns whose cells are checked later, with their
    kind; they are text here, as in CSV, so that one odd cell is one refused row.
    """

    def __init__(
        self, file: IO[bytes], schema: pa.Schema | None, arguments: Mapping[str, ArgumentKind] | None = None
    ) -> None:
        self._lines = _with_texts(_objects(file), arguments or {})
        self._first = [] if schema else list(_some(self._lines, max_bytes=INFERRED_BYTES))
        self.schema = schema or _inferred(self._first)

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        lines = chain(self._first, self._lines)
        while some := list(_some(lines, max_rows=BATCH_ROWS, max_bytes=BATCH_BYTES)):
            yield _batch([number for number, _, _ in some], [values for _, _, values in some], self.schema)


_Line = tuple[int, int, dict[str, Any]]  # its number, from 1; its bytes; what it holds


def _objects(file: IO[bytes]) -> Iterator[_Line]:
    number = 0
    while line := file.readline(MAX_LINE + 1):
        number += 1
        if len(line) > MAX_LINE:
            raise ValueError(f"line {number} is longer than {MAX_LINE:,} bytes")
        text = line.removeprefix(BOM) if number == 1 else line
        if text.strip():
            yield number, len(line), _object(text, number)


def _with_texts(lines: Iterator[_Line], arguments: Mapping[str, ArgumentKind]) -> Iterator[_Line]:
    """Write the cells of arguments as they would stand in CSV; what should be text and is none is marked."""
    for number, size, values in lines:
        for name in arguments.keys() & values.keys():
            value = values[name]
            if value is not None and type(value) is not str:
                mark = NO_TEXT if arguments[name] in _TEXTS else ""
                values[name] = mark + canonical_json(value)
        yield number, size, values


def _object(line: bytes, number: int) -> dict[str, Any]:
    try:
        values = parse_json(line.decode("utf-8", "surrogateescape"))
    except ValueError as error:
        raise ValueError(f"line {number}: {error}") from None
    if not isinstance(values, dict):
        raise ValueError(f"line {number} is no object, as {{...}}")
    return values


def _some(lines: Iterator[_Line], *, max_bytes: int, max_rows: int | None = None) -> Iterator[_Line]:
    """Yield lines until they are so many, at least one."""
    rows = size = 0
    for line in lines:
        yield line
        rows, size = rows + 1, size + line[1]
        if size >= max_bytes or rows == max_rows:
            return


def _inferred(lines: Sequence[_Line]) -> pa.Schema:
    columns: dict[str, dict[int, Any]] = {}
    for number, _, row in lines:
        for name, value in row.items():
            columns.setdefault(name, {})[number] = value
    if len(columns) > MAX_KEYS:
        raise ValueError(f"the lines have more than {MAX_KEYS:,} keys")
    if not lines:
        raise ValueError("it has no lines")
    return pa.schema([(name, _type_of(name, values)) for name, values in columns.items()])


def _type_of(name: str, values: Mapping[int, Any]) -> pa.DataType:
    """Return the type of all values, by the numbers of their lines. Raises ValueError."""
    try:
        return _one_type(list(values.values()))
    except _NO_TYPE as error:
        problem = error
    numbers = list(values)
    sound, odd = 0, len(numbers)  # by halves: a type for so many, none for so many
    while odd - sound > 1:
        middle = (sound + odd) // 2
        try:
            _one_type([values[number] for number in numbers[:middle]])
            sound = middle
        except _NO_TYPE:
            odd = middle
    number = numbers[sound]
    raise ValueError(
        f"line {number}: {name!r} is {values[number]!r:.80}, and has no one type with those before: {problem}"
    )


_NO_TYPE = (pa.ArrowException, OverflowError, UnicodeEncodeError)


def _one_type(values: list[Any]) -> pa.DataType:
    kinds = set(map(type, values)) - {type(None)}
    return pa.string() if kinds == {str} else pa.array(values).type


def _batch(numbers: Sequence[int], rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> pa.RecordBatch:
    known = set(schema.names)
    for number, row in zip(numbers, rows, strict=True):
        if not known.issuperset(row):
            name = next(name for name in row if name not in known)
            raise ValueError(f"line {number} has the key {name!r}, and the first lines do not")
    columns = [_column(field, [row.get(field.name) for row in rows], numbers) for field in schema]
    return pa.RecordBatch.from_arrays(columns, schema=schema) if columns else _without_columns(len(rows))


def _without_columns(num_rows: int) -> pa.RecordBatch:
    return pa.RecordBatch.from_struct_array(pa.array([{}] * num_rows, pa.struct([])))


def _column(field: pa.Field, values: list[Any], numbers: Sequence[int]) -> pa.Array:
    try:
        if _all_fit(values, field.type):
            return pa.array(values, field.type)
    except UnicodeEncodeError:  # half a character, `\ud800`, or no UTF-8: `readable` refuses that row alone
        if field.type == pa.string():
            return _as_bytes(values)
    except (pa.ArrowException, OverflowError):
        pass
    lines = zip(numbers, values, strict=True)
    number, value = next((line for line in lines if not _holds(field.type, line[1])), (numbers[0], values[0]))
    raise ValueError(f"line {number}: {field.name!r} is {value!r:.80}, and the column holds {field.type}")


def _all_fit(values: list[Any], kind: pa.DataType) -> bool:
    if kind in _SCALARS:  # quick: a million values a second and more
        return set(map(type, values)) <= _SCALARS[kind] | {type(None)}
    return all(_fits(value, kind) for value in values)


def _fits(value: Any, kind: pa.DataType) -> bool:
    """Tell whether nothing of a value would be lost: Arrow makes 1 of 1.5, and leaves unknown keys out."""
    if value is None:
        return True
    if pa.types.is_list(kind):
        return isinstance(value, list) and all(_fits(inner, kind.value_type) for inner in value)
    if pa.types.is_struct(kind):
        fields = {field.name: field.type for field in kind}
        return isinstance(value, dict) and all(
            name in fields and _fits(inner, fields[name]) for name, inner in value.items()
        )
    return type(value) in _SCALARS.get(kind, ())


def _holds(kind: pa.DataType, value: Any) -> bool:
    try:
        return _fits(value, kind) and len(pa.array([value], kind)) == 1
    except (pa.ArrowException, OverflowError, UnicodeEncodeError):
        return False


def _as_bytes(values: list[str | None]) -> pa.Array:
    encoded = [None if value is None else value.encode("utf-8", "surrogatepass") for value in values]
    return pa.array(encoded, pa.binary()).view(pa.string())
