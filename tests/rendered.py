"""An output of three rows rendered without Ray, as a worker and a driver would have written it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from framefleet.cluster.messages import Assignment, WorkerSetup
from framefleet.cluster.write import write_clip
from framefleet.jobs.claim import claim
from framefleet.jobs.job_file import job_from_mapping
from framefleet.jobs.resolve import resolve
from framefleet.jobs.watch import Callback
from framefleet.pipeline.clips import Clip
from framefleet.pipeline.model import load
from framefleet.pipeline.outputs.parts import PartWriter
from framefleet.pipeline.outputs.records import RECORD_FIELDS, values_of
from framefleet.pipeline.renderer import Renderer
from framefleet.pipeline.tables.rows import CheckedRow
from tests.jobs import job_values, write_table
from tests.tiny import SMALLEST, build

KINDS: dict[str, dict[str, Any]] = {
    "wan": {"scheduler": "flow_euler", "guidance_scale": 3.5},
    "cogvideox": {"scheduler": "cogvideox_dpm", "guidance_scale": 6.0},
    "sd": {"scheduler": "ddim", "eta": 0.5},
}


def rendered(folder: Path, model: str, *, build_as: str = "", **settings: Any) -> tuple[str, list[str]]:
    """Render three rows in one batch, without Ray; return the output and the row_ids.

    build_as: the model to build, if not `model`. settings: of it, as a job file has them.
    """
    rows = [{"prompt": "一只猫", "seed": seed, "num_inference_steps": 3} | KINDS[model] for seed in range(3)]
    values = job_values(write_table(folder / "t.parquet", rows), folder / "out", model=model)
    path = str(build(build_as or model, folder / "model"))
    values |= {"model": {"path": path, **settings}, "defaults": SMALLEST[model]}
    resolved = resolve(job_from_mapping(values), Callback())
    claim(resolved)
    setup = WorkerSetup(
        model=resolved.model,
        batching=resolved.batching,
        media=resolved.media,
        store=resolved.store,
        recipes=resolved.recipes,
        inputs=resolved.inputs,
    )
    renderer = Renderer(load(resolved.model), resolved.batching)
    for first, batch in resolved.table.batches():
        for row in resolved.plan.rows(first, batch):
            assert isinstance(row, CheckedRow)
            renderer.submit(row.request, resolved.identity(row.request))
    writer = PartWriter(resolved.store, "records", RECORD_FIELDS, run="r1")
    row_ids = []
    while renderer.num_active:
        for clip in renderer.step():
            assert isinstance(clip, Clip)
            assignment = Assignment(row_id=clip.row_id, request=clip.request, attempt=1)
            record = write_clip(clip, assignment, datetime.now(UTC), renderer.model, setup)
            assert record.batch_size > 1 or renderer.capacity == 1
            writer.add(None, values_of(record))
            row_ids.append(clip.row_id)
    writer.flush()
    return str(folder / "out"), row_ids
