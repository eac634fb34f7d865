"""From a finished output folder to its figures, the same way for every way of rendering."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

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


def measure(render: Callable[..., None], table: Path, model: Path, output: Path, **options: Any) -> Outcome:
    """Run `render` in a fresh process and read the figures from the records that it leaves in `output`.

    Rows per second count from each worker's first row, so that loading is left out whoever loads faster, to
    the moment the last record lies on disk, so that waiting for the slowest worker counts.
    """
    began = time.time()
    with ProcessPoolExecutor(1, mp_context=get_context()) as pool:
        pool.submit(render, table, model, output, **options).result()
    wall_s = time.time() - began
    parts = sorted((output / "records").glob("*.parquet"))
    records = pa.concat_tables([pq.read_table(part) for part in parts], promote_options="permissive")
    end = max(part.stat().st_mtime for part in parts)
    starts = records.group_by("worker").aggregate([("started_at", "min")])["started_at_min"].to_pylist()
    busy_s = [end - start.timestamp() for start in starts]
    return Outcome(
        rows_per_s=records.num_rows * len(starts) / sum(busy_s),
        wall_s=wall_s,
        mean_batch=pc.mean(records["batch_size"]).as_py(),
        digests=dict(zip(records["number"].to_pylist(), records["frames_sha256"].to_pylist(), strict=True)),
        records=records,
    )
