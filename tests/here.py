"""Jobs rendered in this process, without Ray: what a worker and the driver do, one after the other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from framefleet.jobs.job.file import job_from_mapping
from framefleet.jobs.render.claim import claim
from framefleet.jobs.render.render import work_of
from framefleet.jobs.render.resolve import resolve_job
from framefleet.jobs.show.watch import Callback
from framefleet.pipeline.model.load import load
from framefleet.pipeline.outputs.clips import Clip
from framefleet.pipeline.outputs.encode_clip import encode_clip, store_clip
from framefleet.pipeline.outputs.parts.parts import PartWriter
from framefleet.pipeline.outputs.parts.records import RECORD_FIELDS, values_of
from framefleet.pipeline.render.audit.schedule import Audit
from framefleet.pipeline.render.renderer import Renderer
from framefleet.pipeline.rows.tables.index import RowIndex
from framefleet.pipeline.rows.tables.rows import CheckedRow


def render_here(values: Mapping[str, Any], *, is_mixed: bool = False) -> tuple[str, list[str]]:
    """Render the rows of a job whose table carries nothing; return the output and the row_ids.

    is_mixed: they differ so much that some of them need not share a forward.
    """
    resolved = resolve_job(job_from_mapping(values), Callback())
    claim(resolved)
    rows = [
        row for first, batch in resolved.table.batches() for row in resolved.first.plan.rows(first, batch)
    ]
    setup = work_of(resolved, RowIndex(), None, run="r1").setup  # type: ignore[arg-type]
    renderer = Renderer(
        load(setup.model, setup.model_files),
        setup.batching,
        recipes=setup.recipes,
        inputs=setup.inputs,
        second_models=setup.second_models,
        audit=Audit(every=0),
        keep=setup.keep,
    )
    for row in rows:
        assert isinstance(row, CheckedRow), row
        renderer.submit(row.request, resolved.first.identity(row.request))
    writer = PartWriter(resolved.store, "records", RECORD_FIELDS, run="r1")
    row_ids, batch_sizes = [], []
    while renderer.num_active:
        for clip in renderer.step():
            assert isinstance(clip, Clip), clip
            record = store_clip(resolved.store, encode_clip(clip, setup.media))
            batch_sizes.append(record.batch_size)
            writer.add(None, values_of(record))
            row_ids.append(clip.row_id)
    writer.flush()
    smallest = max(batch_sizes) if is_mixed else min(batch_sizes)
    assert smallest > 1 or renderer.capacity == 1 or len(rows) == 1, batch_sizes
    return resolved.store.url_of(""), row_ids
