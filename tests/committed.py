"""The output of a job as a driver leaves it, but for its clips, which are any bytes: nothing is rendered."""

from __future__ import annotations

import hashlib
from contextlib import closing
from pathlib import Path
from typing import Any

from framefleet import Store
from framefleet.jobs.job.file import load_job
from framefleet.jobs.render.claim import claim
from framefleet.jobs.render.resolve import resolve_job
from framefleet.jobs.show.watch import Callback
from framefleet.pipeline.outputs.layout import clip_path
from framefleet.pipeline.outputs.parts.parts import PartWriter
from framefleet.pipeline.outputs.parts.records import RECORD_FIELDS, values_of
from framefleet.pipeline.outputs.parts.seals import new_run
from framefleet.pipeline.rows.tables.table_rows import IdentifiedRow
from tests.jobs import job_values, prompt_rows, write_job, write_table
from tests.rows import record

ROWS_IN_A_PART = 2


def committed(folder: Path, num_rows: int = 6, **more: Any) -> Path:
    """Commit the rows of a job, two in a part; return its job file, beside which `out` lies."""
    rows = [{name: row[name] for name in ("prompt", "seed")} for row in prompt_rows(num_rows)]
    job = write_job(
        folder / "job.yaml", job_values(write_table(folder / "t.parquet", rows), folder / "out", **more)
    )
    with closing(resolve_job(load_job(job), Callback())) as resolved:
        claim(resolved)
        store, text = resolved.store, resolved.store.read("job.json").decode()
        writer = PartWriter(store, "records", RECORD_FIELDS, run=new_run(1), job=text)
        for first, batch in resolved.table.batches():
            for row in resolved.rows.read(first, batch):
                assert isinstance(row, IdentifiedRow)
                writer.add(None, _stored(store, row.row_id))
                if writer.rows_waiting == ROWS_IN_A_PART:
                    writer.flush()
        writer.flush()
    return job


def _stored(store: Store, row_id: str) -> dict[str, Any]:
    """Store a clip; return its record."""
    content, path = f"the clip of {row_id}".encode(), clip_path(row_id, ".mp4")
    store.create(path, content)
    digest = hashlib.sha256(content).hexdigest()
    changed = {"uri": store.url_of(path), "path": path, "media_sha256": digest, "bytes": len(content)}
    return values_of(record(0, **changed)) | {"row_id": row_id}
