"""Parts of an output, as drivers and `score` write them: records, scores, lines of the log."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from framefleet import Output, Store
from framefleet.pipeline.outputs.layout import LOGS, ROWS, SCORES
from framefleet.pipeline.outputs.parts.parts import PartWriter
from framefleet.pipeline.outputs.parts.records import (
    MAY_COME_LATER,
    RECORD_FIELDS,
    fields_named,
    record_schema,
    values_of,
)
from framefleet.pipeline.outputs.row_states import LOG_FIELDS
from tests.outputs import write_part
from tests.rows import NOON, record

NO_COLUMNS = pa.table({})


def records_in(store: Store) -> pa.Table:
    """Return our columns of the records that count."""
    output = Output(store)
    columns = RECORD_FIELDS.names
    return pa.concat_tables([output.schema(columns).empty_table(), *output.records(columns)])


def write_records(
    folder: Path,
    run: str,
    numbers: Sequence[int],
    carried: pa.Table = NO_COLUMNS,
    scores: pa.Table = NO_COLUMNS,
    clip: str = "a",
) -> str:
    """Write one part; return its path. scores: as workers measure them. clip: which one each row has."""
    added = pa.schema([field.with_metadata(MAY_COME_LATER) for field in scores.schema])
    writer = PartWriter(Store(str(folder)), "records", record_schema(carried.schema, added=added), run=run)
    measured = scores.to_pylist() or [{}] * len(numbers)
    for place, number in enumerate(numbers):
        row = carried.slice(place, 1).combine_chunks().to_batches() if carried.num_columns else [None]
        values = values_of(record(number, worker=run, media_sha256=clip * 64))
        writer.add(row[0], values | measured[place])
    return writer.flush()[0]


def write_scores(folder: Path, run: str, numbers: Sequence[int], **columns: list[Any]) -> None:
    """Write scores of these rows, as somebody measured them later."""
    table = pa.table(columns | {"row_id": [f"{number:032x}" for number in numbers]})
    write_part(Store(str(folder)), SCORES, table.schema, table.to_pylist(), run)


def write_log(folder: Path, *lines: tuple[str, str], **changed: Any) -> None:
    """Write lines of the log: each of a row_id and what happened to it."""
    line = {"at": NOON, "level": "info", "worker": "worker-0", **changed}
    said = [line | {"row_id": row, "message": text} for row, text in lines]
    write_part(Store(str(folder)), LOGS, LOG_FIELDS, said)


def write_row_ids(folder: Path, *row_ids: str) -> None:
    """Write which rows the table has."""
    columns = fields_named(RECORD_FIELDS, "row_id")
    write_part(Store(str(folder)), ROWS, columns, [{"row_id": one} for one in row_ids])
