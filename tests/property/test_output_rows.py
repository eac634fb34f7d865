"""Whatever rows went through, each row of the table is done, failed or left, and everybody says the same."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
from hypothesis import given, settings, strategies as st

import framefleet
from framefleet import Output, Store
from framefleet.jobs.job.schema import Job
from framefleet.jobs.render.render import rows_to_retry
from framefleet.pipeline.outputs.held_output import HeldOutput
from framefleet.pipeline.outputs.layout import FAILURES, RECORDS, ROWS
from framefleet.pipeline.outputs.parts.parts import replace_part, withdraw
from framefleet.pipeline.outputs.parts.records import failure_schema, record_schema, row_schema, values_of
from framefleet.pipeline.outputs.parts.seals import Part, parts_in
from framefleet.plugins.compact.compaction import merge_small_parts
from framefleet.plugins.pages.gallery.blocks import shown_failures
from tests.long import examples
from tests.outputs import write_part
from tests.rows import failure, record

_NOTHING = pa.schema([])
_IDS = st.sets(st.integers(0, 7), max_size=8)
_STEPS = st.lists(
    st.tuples(st.sampled_from(["done", "failed", "withdrawn", "forgotten", "compacted", "table"]), _IDS),
    max_size=8,
)


class Held:
    """The lock of a driver that nobody takes over."""

    epoch = 1

    def check(self) -> None:
        pass

    def merged(self, parts: Iterable[Part], *, run: str, count: int) -> None:
        pass


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
