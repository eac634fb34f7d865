"""Jobs rendered in this process, without Ray: what a worker and the driver do, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pyarrow as pa

from framefleet import Audit, Clip, Renderer
from framefleet.jobs.job.file import load_job
from framefleet.jobs.render.claim import claim
from framefleet.jobs.render.render import run_of
from framefleet.jobs.render.resolve import resolve_job
from framefleet.jobs.show.watch import Callback
from framefleet.pipeline.model.load import load
from framefleet.pipeline.outputs.columns import measure
from framefleet.pipeline.outputs.encode_clip import encode_input, store_clip
from framefleet.pipeline.outputs.file_step import StepInput, added_columns
from framefleet.pipeline.outputs.parts.parts import PartWriter
from framefleet.pipeline.outputs.parts.records import RECORD_FIELDS, values_of
from framefleet.pipeline.rows.tables.index import RowIndex
from framefleet.pipeline.rows.tables.rows import CheckedRow
from tests.jobs import job_values, write_table
from tests.tiny import SMALLEST, build


def render_here(
    values: Mapping[str, Any], *, is_mixed: bool = False, least: Callable[[list[float]], float] = min
) -> tuple[str, list[str]]:
    """Render the rows of a job whose table carries nothing; return the output and the row_ids.

    is_mixed: they differ so much that none of them need share a forward. least: of the batch sizes of
    others, the one that has to be above 1.
    """
    resolved = resolve_job(load_job(values), Callback())
    claim(resolved)
    rows = [
        row for first, batch in resolved.table.batches() for row in resolved.first.plan.rows(first, batch)
    ]
    run = run_of(resolved, RowIndex(), None, run_id="r1")  # type: ignore[arg-type]
    setup = next(iter(run.setups.values()))
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
    schema = pa.schema([*RECORD_FIELDS, *added_columns(setup.steps, setup.columns)])
    writer = PartWriter(resolved.store, "records", schema, run="r1")
    row_ids: list[str] = []
    batch_sizes: list[float] = []
    while renderer.num_active:
        for clip in renderer.step():
            assert isinstance(clip, Clip), clip
            of = StepInput(clip=clip, media=setup.media, read=setup.inputs.read)
            encoded = encode_input(of, setup.steps.values())
            added = of.values | measure(setup.columns, clip.frames, values_of(encoded.record)).values
            record = store_clip(resolved.store, encoded)
            batch_sizes.append(record.batch_size)
            writer.add(None, values_of(record) | added)
            row_ids.append(clip.row_id)
    writer.flush()
    assert least(batch_sizes) > 1 or renderer.capacity == 1 or len(rows) == 1 or is_mixed, batch_sizes
    return resolved.store.url_of(""), row_ids


KINDS: dict[str, dict[str, Any]] = {
    "wan": {"scheduler": "flow_euler", "guidance_scale": 3.5},
    "cogvideox": {"scheduler": "cogvideox_dpm", "guidance_scale": 6.0},
    "sd": {"scheduler": "ddim", "eta": 0.5},
}


def rendered(folder: Path, model: str, *, build_as: str = "", **settings: Any) -> tuple[str, list[str]]:
    """Render three rows in one batch, without Ray; return the output and the row_ids. The second has a rate.

    build_as: the model to build, if not `model`. settings: of it, as a job file has them.
    """
    shared = {"prompt": "一只猫", "num_inference_steps": 3} | KINDS[model]
    rows = [{"seed": seed, "fps": 12.5 if seed == 1 else None} | shared for seed in range(3)]
    values = job_values(write_table(folder / "t.parquet", rows), folder / "out", model=model)
    path = str(build(build_as or model, folder / "model"))
    values |= {"model": {"path": path, **settings}, "defaults": SMALLEST[model]}
    return render_here(values)


def run_script(script: str) -> str:
    """Run a replay script in this process, which has imported diffusers; return what it prints."""
    with redirect_stdout(StringIO()) as printed:
        exec(compile(script, "again.py", "exec"), {})
    return printed.getvalue()
