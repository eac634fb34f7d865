"""In: `order` of the job. Out: the number by which each row is ranked."""

from __future__ import annotations

import math

import pyarrow as pa

from framefleet.pipeline.errors import JobError
from framefleet.pipeline.guards.mistakes import did_you_mean
from framefleet.pipeline.model.specs.signature import FRAME_PARAMETERS
from framefleet.pipeline.request import Request

AS_TABLE, LONGEST, PRIORITY = "table", "longest", "priority:"
_WORK = (*FRAME_PARAMETERS, "height", "width", "num_inference_steps")


def check_order(order: str, *columns: pa.Schema) -> None:
    """Raise JobError if `order` names a column that rows do not have, or one without numbers.

    columns: those that records will have of a row.
    """
    if not order.startswith(PRIORITY):
        return
    name, types = (
        order.removeprefix(PRIORITY),
        {field.name: field.type for fields in columns for field in fields},
    )
    numeric = [name for name, kind in types.items() if _is_number(kind)]
    if name not in types:
        raise JobError(f"order is {order!r}, but no column is called {name!r}", did_you_mean(name, numeric))
    if name not in numeric:
        raise JobError(f"order is {order!r}, but {name!r} holds {types[name]}", "name a column of numbers")


def rank_of(order: str, request: Request, carried: pa.RecordBatch) -> float:
    """Return the number of a row: the highest goes first, one without a number last. carried: its columns."""
    if order == LONGEST:
        return work_in(request)
    name = order.removeprefix(PRIORITY)
    value = carried[name][0].as_py() if name in carried.schema.names else request.arguments.get(name)
    return -math.inf if value is None or math.isnan(value) else float(value)


def work_in(request: Request) -> float:
    """Return frames x pixels x steps: to compare rows of one model."""
    factors = (request.arguments.get(name) for name in _WORK)
    return float(math.prod(factor for factor in factors if isinstance(factor, int | float)))


def _is_number(kind: pa.DataType) -> bool:
    kinds = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_boolean)
    return any(is_kind(kind) for is_kind in kinds)
