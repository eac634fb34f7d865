"""Whatever a table carries and rows went through, the records say it, and everybody says the same."""

from __future__ import annotations

import tempfile
import uuid
from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
from hypothesis import HealthCheck, given, settings, strategies as st

import framefleet
from framefleet.api.outputs import FAILURES, RECORDS, ROWS, HeldOutput, Output, Store
from framefleet.jobs.job.schema import Job
from framefleet.jobs.render.render import rows_to_retry
from framefleet.pipeline.outputs.parts.parts import PartWriter, replace_part, withdraw
from framefleet.pipeline.outputs.parts.records import (
    RECORD_FIELDS,
    failure_schema,
    record_schema,
    row_schema,
    values_of,
)
from framefleet.pipeline.outputs.parts.seals import parts_in
from framefleet.plugins.compact.compaction import merge_small_parts
from framefleet.plugins.pages.gallery.blocks import shown_failures
from tests.jobs import all_columns
from tests.long import examples
from tests.outputs import Held, committed_row_ids, write_part
from tests.rows import failure, record

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


_NOTHING = pa.schema([])
_IDS = st.sets(st.integers(0, 7), max_size=8)
_STEPS = st.lists(
    st.tuples(st.sampled_from(["done", "failed", "withdrawn", "forgotten", "compacted", "table"]), _IDS),
    max_size=8,
)


@dataclass(slots=True)
class Written:
    """An output, and what its files must come to. Drivers end with any of these steps, or die after it."""

    store: Store
    table: set[int]
    done: set[int] = field(default_factory=set)
    failed: set[int] = field(default_factory=set)
    num_runs: int = 0

    def step(self, kind: str, ids: set[int]) -> None:
        self.num_runs += 1
        run = f"000001-20260102T120000-{self.num_runs:08x}"
        if kind == "done":
            write_part(
                self.store, RECORDS, record_schema(_NOTHING), [values_of(record(one)) for one in ids], run
            )
            self.done |= ids
        elif kind == "failed":
            rows = [values_of(failure(row_id=f"{one:032x}", message=run)) for one in ids]
            write_part(self.store, FAILURES, failure_schema(_NOTHING), rows, run)
            self.failed |= ids
        elif kind == "withdrawn":  # an audit found them wrong
            gone = {f"{one:032x}" for one in ids}
            list(withdraw(self.store, lambda row: row["row_id"] in gone, Held()))
            self.done -= ids
        elif kind == "compacted":
            merge_small_parts(HeldOutput(self.store, Held()))
        elif kind == "forgotten":  # they were tried again, and their run ended well
            gone = {f"{one:032x}" for one in ids}
            for number, part in enumerate(parts_in(self.store, FAILURES), start=1):
                replace_part(self.store, part.path, gone, run=run, number=number, hold=Held())
            self.failed -= ids
        else:
            self.store.delete_many(self.store.list(ROWS))
            rows = [{"row_index": number, "row_id": f"{one:032x}"} for number, one in enumerate(ids)]
            write_part(self.store, ROWS, row_schema(_NOTHING), rows, run)
            self.table = ids


@settings(max_examples=examples(60), deadline=None)
@given(table=st.sets(st.integers(0, 7), min_size=1), steps=_STEPS)
def test_each_row_is_done_failed_or_left_and_all_who_look_agree(
    table: set[int], steps: list[tuple[str, set[int]]]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        written = Written(Store(folder), table)
        written.store.write("job.json", b'{"job": {}}')
        written.step("table", table)
        for kind, ids in steps:
            written.step(kind, ids if kind != "table" else ids | {0})
        _check(written, Path(folder))


def _check(written: Written, folder: Path) -> None:
    output = Output.open(str(folder))
    counts, done = output.counts(), written.done & written.table
    failed = written.failed & written.table - done
    assert counts.rows == len(written.table)
    assert (counts.done, counts.failed) == (len(done), len(failed))
    assert counts.left == len(written.table - done - failed)
    assert counts.former == len(written.done - written.table)
    there = {int(row.row_id, 16): row for row in output.failures()}
    assert there.keys() == failed
    for seen in (
        [row.row_id for row in framefleet.failures(str(folder))],
        [row_id for table in shown_failures(output.store) for row_id in table["row_id"].to_pylist()],
    ):
        assert Counter(seen) == Counter(row.row_id for row in there.values())
    job = Job.model_validate({"table": "unused.csv", "output": str(folder), "model": "unused"})
    assert rows_to_retry(job).row_ids == {row.row_id for row in there.values()}
    status = framefleet.status(str(folder))
    assert (status.num_rows, status.num_failed, status.num_left) == (counts.rows, counts.failed, counts.left)
    report = framefleet.report(str(folder), write=False).rows
    assert (report.done, report.failed, report.left) == (counts.done, counts.failed, counts.left)
