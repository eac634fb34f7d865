"""From a finished output folder to its figures, the same way for every way of rendering."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How one way did. digests: frames_sha256 by row. wall_s: with starting processes and loading models."""

    rows_per_s: float
    wall_s: float
    mean_batch: float
    digests: Mapping[int, str]
    records: pa.Table


def measure(output: Path, render: Callable[[], None]) -> Outcome:
    """Run `render`, which fills `output`, and read the figures from the records it leaves there.

    Rows per second count from each worker's first row, so that loading is left out whoever loads faster, to
    the moment the last record lies on disk, so that waiting for the slowest worker counts.
    """
    began = time.time()
    render()
    wall_s = time.time() - began
    parts = sorted((output / "records").glob("*.parquet"))
    table = pa.concat_tables([pq.read_table(part) for part in parts], promote_options="permissive")
    end = max(part.stat().st_mtime for part in parts)
    starts = table.group_by("worker").aggregate([("started_at", "min")])["started_at_min"].to_pylist()
    busy_s = [end - start.timestamp() for start in starts]
    return Outcome(
        rows_per_s=table.num_rows * len(starts) / sum(busy_s),
        wall_s=wall_s,
        mean_batch=pc.mean(table["batch_size"]).as_py(),
        digests=dict(zip(table["number"].to_pylist(), table["frames_sha256"].to_pylist(), strict=True)),
        records=table,
    )
