"""Whatever columns a table carries, they come back from the records as they went in."""

from __future__ import annotations

import uuid
from decimal import Decimal
from typing import Any

import fsspec
import pyarrow as pa
from hypothesis import HealthCheck, given, settings, strategies as st

from framefleet import Store
from framefleet.pipeline.outputs.parts.parts import PartWriter
from framefleet.pipeline.outputs.parts.records import RECORD_FIELDS, record_schema, values_of
from tests.jobs import all_columns
from tests.long import examples
from tests.outputs import committed_row_ids
from tests.rows import record

WORDS = st.text(max_size=8).filter(lambda text: text.isprintable())
WHOLE = st.integers(-(2**31), 2**31 - 1)

FLAT: list[tuple[pa.DataType, st.SearchStrategy[Any]]] = [
    (pa.null(), st.none()),
    (pa.bool_(), st.booleans()),
    (pa.int8(), st.integers(-128, 127)),
    (pa.uint64(), st.integers(0, 2**64 - 1)),
    (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    (pa.float16(), st.floats(width=16, allow_nan=False)),
    (pa.float32(), st.floats(width=32, allow_nan=False)),
    (pa.float64(), st.floats(allow_nan=False)),
    (pa.string(), WORDS),
    (pa.large_string(), WORDS),
    (pa.string_view(), WORDS),
    (pa.binary(), st.binary(max_size=8)),
    (pa.binary(4), st.binary(min_size=4, max_size=4)),
    (pa.dictionary(pa.int32(), pa.string()), WORDS),
    (pa.decimal128(12, 3), WHOLE.map(lambda cents: Decimal(cents) / 1000)),
    (pa.date32(), st.dates()),
    (pa.time64("us"), st.times()),
    (pa.timestamp("ms", "Asia/Shanghai"), WHOLE),
    (pa.timestamp("ns"), WHOLE),
    (pa.duration("s"), WHOLE),
]


def nested(inner: tuple[pa.DataType, st.SearchStrategy[Any]]) -> st.SearchStrategy[Any]:
    kind, values = inner
    optional = st.none() | values
    return st.sampled_from(
        [
            (pa.list_(kind), st.lists(optional, max_size=3)),
            (pa.large_list(kind), st.lists(optional, max_size=3)),
            (pa.list_(kind, 2), st.lists(optional, min_size=2, max_size=2)),
            (pa.struct([("x", kind), ("y", pa.int32())]), st.fixed_dictionaries({"x": optional, "y": WHOLE})),
        ]
    )


# Arrow itself does not read these back from Parquet when they are nested: "Slicing not implemented".
ALONE = (pa.dictionary(pa.int32(), pa.string()), pa.string_view())
TYPES = st.sampled_from(FLAT) | st.sampled_from([pair for pair in FLAT if pair[0] not in ALONE]).flatmap(
    nested
)


@st.composite
def tables(draw: st.DrawFn) -> pa.RecordBatch:
    num_rows = draw(st.integers(1, 6))
    names = draw(st.lists(st.sampled_from(["id", "时间", "a b", "Seed", "extra.name"]), unique=True))
    columns = []
    for _ in names:
        kind, values = draw(TYPES)
        rows = draw(st.lists(st.none() | values, min_size=num_rows, max_size=num_rows))
        columns.append(pa.array(rows, kind))
    return pa.record_batch(columns, names=names) if names else pa.record_batch({"id": [1] * num_rows})


@settings(max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(table=tables(), size=st.integers(1, 4))
def test_any_carried_columns_come_back_as_they_went_in(table: pa.RecordBatch, size: int) -> None:
    store = Store(f"memory://{uuid.uuid4().hex}")
    writer = PartWriter(store, "records", record_schema(table.schema), run="r")
    for index in range(table.num_rows):
        writer.add(table.slice(index, 1), values_of(record(index)))
        if writer.rows_waiting == size:
            writer.flush()
    writer.flush()
    ids = [f"{index:032x}" for index in range(table.num_rows)]
    assert [row_id for part in committed_row_ids(store) for row_id in part] == ids
    read = all_columns(store, "records")
    assert read.schema.equals(record_schema(table.schema))
    assert read.select(table.schema.names).to_pylist() == table.to_pylist()
    assert read.select(RECORD_FIELDS.names)["seed"].to_pylist() == [2**63 - 1] * table.num_rows
    fsspec.filesystem("memory").store.clear()
