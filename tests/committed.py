"""The output of a job as a driver leaves it, but for its clips, which are black: nothing is rendered."""

from __future__ import annotations

import hashlib
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from framefleet import Store
from framefleet.jobs.job.file import load_job
from framefleet.jobs.render.claim import claim
from framefleet.jobs.render.resolve import resolve_job
from framefleet.jobs.show.watch import Callback
from framefleet.pipeline.guards.json_text import canonical_json
from framefleet.pipeline.outputs.layout import clip_path
from framefleet.pipeline.outputs.media.media import encode
from framefleet.pipeline.outputs.media.media_settings import Media
from framefleet.pipeline.outputs.parts.parts import PartWriter
from framefleet.pipeline.outputs.parts.records import RECORD_FIELDS, values_of
from framefleet.pipeline.outputs.parts.seals import new_run
from framefleet.pipeline.rows.identity import Identity
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
                writer.add(None, _stored(store, row, resolved.first.identity))
                if writer.rows_waiting == ROWS_IN_A_PART:
                    writer.flush()
        writer.flush()
    return job


def _stored(store: Store, row: IdentifiedRow, identity: Identity) -> dict[str, Any]:
    """Store a clip of a few black pixels; return its record."""
    row_id, request, path = row.row_id, row.request(), clip_path(row.row_id, ".mp4")
    size = {"num_frames": 2, "height": 16, "width": 16}
    frames = np.zeros((*size.values(), 3), np.uint8)
    content = encode(frames, media=Media(), fps=16.0, metadata={"row_id": row_id})
    store.create(path, content)
    digest = hashlib.sha256(content).hexdigest()
    changed = {"uri": store.url_of(path), "path": path, "media_sha256": digest, "bytes": len(content)}
    asked = {name: getattr(request, name) for name in ("seed", "scheduler", "recipe")}
    texts = {"arguments": canonical_json(request.arguments), "numerics": canonical_json(identity.numerics)}
    texts |= {"model_digest": identity.model_digest, "environment": '{"threads":1}'}
    return values_of(record(0, **changed, **size, **asked, **texts, duration_s=0.125)) | {"row_id": row_id}
