"""In: an output. Out: how many rows of its table are done, failed and left, each counted once."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import pyarrow as pa

from framefleet.pipeline.outputs.layout import FAILURES, ROWS
from framefleet.pipeline.outputs.parts.part_names import Part, parts_in
from framefleet.pipeline.outputs.parts.parts import read_parts
from framefleet.pipeline.outputs.parts.records import FAILURE_FIELDS, FIRST_FIELDS, ROW_FIELDS, fields_named
from framefleet.pipeline.outputs.parts.seals import live_parts
from framefleet.pipeline.outputs.stores.store import Store

_ROW, _RECORD, _FAILURE = 1, 2, 4  # where a row_id was seen
_SEEN = pa.schema([("row_id", pa.string()), ("seen", pa.uint8())])
_COUNT = """
    SELECT seen, count(*) FROM (SELECT row_id, bit_or(seen) AS seen FROM ids GROUP BY row_id) GROUP BY seen
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputCounts:
    """Distinct rows that can be rendered. rows: all in the table as it was last read: done + failed + left.

    former: those with a record that are no longer in the table. Earlier versions did not write down the
    table's rows: then `rows` and `left` are None, and whatever has a record or a failure is counted.
    """

    rows: int | None
    done: int
    failed: int
    left: int | None
    former: int


def count_rows(store: Store) -> OutputCounts:
    """Read every row_id of an output once. Raises JobError for a part that is not ours, or damaged."""
    rows = parts_in(store, ROWS)
    ids = chain(
        _ids(store, rows, ROW_FIELDS, _ROW),
        _ids(store, live_parts(store), FIRST_FIELDS, _RECORD),
        _ids(store, parts_in(store, FAILURES), FAILURE_FIELDS, _FAILURE),
    )
    counted = _grouped(pa.RecordBatchReader.from_batches(_SEEN, ids))

    def number(*, wanted: int, unwanted: int = 0) -> int:
        return sum(n for seen, n in counted.items() if seen & wanted == wanted and not seen & unwanted)

    known = _ROW if rows else 0
    total = number(wanted=_ROW)
    done = number(wanted=known | _RECORD)
    failed = number(wanted=known | _FAILURE, unwanted=_RECORD)
    return OutputCounts(
        rows=total if rows else None,
        done=done,
        failed=failed,
        left=total - done - failed if rows else None,
        former=number(wanted=_RECORD) - done,
    )


def _ids(store: Store, parts: Sequence[Part], fields: pa.Schema, seen: int) -> Iterator[pa.RecordBatch]:
    for table in read_parts(store, [part.path for part in parts], fields_named(fields, "row_id")):
        for batch in table.to_batches():
            mark = pa.repeat(pa.scalar(seen, pa.uint8()), len(batch))
            yield pa.RecordBatch.from_arrays([batch.column(0), mark], schema=_SEEN)


def _grouped(ids: pa.RecordBatchReader) -> dict[int, int]:
    """Return how many row_ids were seen in each set of places; what memory does not hold goes to disk.

    A hundred million rows and their records need more than one gigabyte.
    """
    import duckdb  # here: it takes a tenth of a second, and most commands count nothing

    with (
        tempfile.TemporaryDirectory(prefix="framefleet-") as folder,
        duckdb.connect(config={"temp_directory": folder, "memory_limit": "4GB"}) as database,
    ):
        database.register("ids", ids)
        return dict(database.execute(_COUNT).fetchall())
