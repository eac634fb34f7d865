"""From a row's arguments to a column for each, which records have besides their JSON."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import pyarrow as pa

from framefleet.pipeline.guards.redaction import public_url
from framefleet.pipeline.model.specs.signature import ArgumentKind
from framefleet.pipeline.request import is_input, is_model

_TYPES: Mapping[ArgumentKind, pa.DataType] = {
    "str": pa.string(),
    "int": pa.int64(),
    "float": pa.float64(),
    "bool": pa.bool_(),
    "image": pa.string(),  # its path or URL
    "images": pa.string(),  # where it is one
    "floats": pa.float64(),
    "ints": pa.int64(),
    "video": pa.string(),
    "model": pa.string(),  # its name in the job
}
_INT64 = range(-(2**63), 2**63)


def argument_fields(kinds: Mapping[str, ArgumentKind], taken: Collection[str]) -> pa.Schema:
    """Return a column for every argument that is one number, text, or place.

    kinds: of the arguments that rows may have, whether they do or not: the columns are of the job, not of its
    rows. taken: names that records have for something else.
    """
    return pa.schema(
        [(name, _TYPES[kind]) for name, kind in kinds.items() if kind in _TYPES and name not in taken]
    )


def argument_values(arguments: Mapping[str, Any], fields: pa.Schema) -> dict[str, Any]:
    """Return the cells of a row: null where it has no such argument, or one that is no such value.

    As a schedule of guidance, which is text where others have a number.
    """
    return {field.name: _cell(arguments.get(field.name), field.type) for field in fields}


def _cell(value: Any, kind: pa.DataType) -> str | int | float | bool | None:
    if is_input(value):
        value = public_url(value["uri"])
    elif is_model(value):
        value = value["name"]
    if kind == pa.string():
        return value if isinstance(value, str) else None
    if kind == pa.bool_() or isinstance(value, bool):
        return value if kind == pa.bool_() and isinstance(value, bool) else None
    if kind == pa.int64():
        return value if isinstance(value, int) and value in _INT64 else None
    return _number(value) if isinstance(value, int | float) else None


def _number(value: float) -> float | None:
    try:
        return float(value)
    except OverflowError:  # a whole number of pages
        return None
