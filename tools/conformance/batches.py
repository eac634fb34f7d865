"""Rows rendered in batches: by a renderer in this process, or by a fleet of two workers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import framefleet
from framefleet.pipeline.model.specs.spec import inspect_model
from framefleet.pipeline.outputs.clips import Clip
from tests.jobs import job_values, records_of, write_table
from tests.mixed import Cells
from tests.tiny import OPTIONS, tiny
from tools.conformance.plain import Made

MAX_ROWS = 4  # of a forward: each size up to it is probed
Rendered = Mapping[int, Made | str]  # by the row's seed; of one that failed, why


def rendered_here(name: str, dtype: Any, rows: Sequence[Cells], folder: Path) -> Rendered:
    """Render rows without Ray. folder: of the files that rows start from."""
    renderer = framefleet.Renderer(
        framefleet.load_model(tiny(name), dtype=dtype, **OPTIONS.get(name, {})),
        framefleet.Batching(max_rows=MAX_ROWS, min_gain=0),
        audit=framefleet.Audit(every=0),  # every row is compared with a plain call anyhow
        inputs=framefleet.Inputs([str(folder)], base=str(folder)),
    )
    outcomes = list(renderer.render(map(_request, rows)))
    return {
        outcome.request.seed: _made(outcome) if isinstance(outcome, Clip) else said(outcome.error)
        for outcome in outcomes
    }


def rendered_by_fleet(
    name: str, dtype: Any, rows: Sequence[Cells], folder: Path, *, address: str, workers: int = 2
) -> Rendered:
    """Render rows on the Ray cluster at `address`, next to the files that they start from."""
    values = job_values(
        write_table(folder / "rows.parquet", rows),
        folder / "out",
        model=name,
        address=address,
        batching={"max_rows": MAX_ROWS, "min_gain": 0},
        retries={"copies": False},  # so that each worker keeps its rows
    )
    values |= {"defaults": {}, "model": {"path": str(tiny(name)), "dtype": dtype, **OPTIONS.get(name, {})}}
    values["fleet"]["workers"] = workers
    values["inputs"] = {"fit": "stretch"}  # as plain calls do
    spec = inspect_model(tiny(name))
    if spec.has_sound:  # whatever the rate of a tiny model's
        values["media"] = {"format": "flac" if spec.kind == "audio" else "mkv"}
    framefleet.render(values)
    failures = {record["seed"]: record["message"] for record in records_of(folder / "out", "failures")}
    return failures | {record["seed"]: _recorded(record) for record in records_of(folder / "out")}


def said(error: Exception) -> str:
    """Return the first line of what an error says."""
    return (str(error) or type(error).__name__).partition("\n")[0]


def _request(row: Cells) -> framefleet.Request:
    given = {key: cell for key, cell in row.items() if cell is not None and key not in ("seed", "scheduler")}
    return framefleet.Request(arguments=given, seed=row["seed"], scheduler=row["scheduler"])


def _made(clip: Clip) -> Made:
    return Made(clip.frames_sha256, getattr(clip, "audio_sha256", None), clip.batch_size)


def _recorded(record: Mapping[str, Any]) -> Made:
    return Made(record["frames_sha256"], record.get("audio_sha256"), record["batch_size"])
