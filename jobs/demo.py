"""A small table, a tiny model and a job for them, in one folder; and a picture of what came out."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from framefleet.jobs.demo_model import build_demo_model
from framefleet.jobs.job import Job
from framefleet.jobs.job_file import load_job
from framefleet.pipeline.outputs.contact_sheet import contact_sheet
from framefleet.pipeline.outputs.frames import Frames
from framefleet.pipeline.outputs.media import decode
from framefleet.pipeline.outputs.parts import read_records
from framefleet.pipeline.outputs.store import Store

PROMPTS = Path(__file__).with_name("demo_prompts.csv")


def prepare_demo(folder: Path) -> Job:
    """Put model, table and job.yaml into `folder`; return the job. A table that is there already stays."""
    model = build_demo_model(folder / "model")
    table = folder / "prompts.csv"
    if not table.exists():
        shutil.copyfile(PROMPTS, table)
    job = {
        "table": str(table),
        "output": str(folder),
        "model": {"path": str(model), "device": "cpu"},
        "defaults": {"max_sequence_length": 128},
        "fleet": {"workers": 2, "gpus_per_worker": 0},
    }
    file = folder / "job.yaml"
    file.write_text(yaml.safe_dump(job, sort_keys=False), encoding="utf-8")
    return load_job(file)


def contact_sheet_of(folder: Path) -> Path:
    """Draw the clips of a local output into contact-sheet.png, in table order, and return its path."""
    sheet = folder / "contact-sheet.png"
    records = read_records(Store(str(folder))).to_pylist()
    contact_sheet(_tiles(sorted(records, key=lambda record: record["row_indices"]))).save(sheet)
    return sheet


def _tiles(records: list[dict[str, Any]]) -> Iterator[tuple[Frames, str]]:
    for record in records:
        yield decode(Path(record["uri"]).read_bytes()), _caption(record)


def _caption(record: Mapping[str, Any]) -> str:
    arguments = json.loads(record["arguments"])
    return "\n".join(
        [
            arguments["prompt"],
            f"seed {record['seed']}, {arguments['num_inference_steps']} steps, "
            f"guidance {arguments['guidance_scale']:g}",
            f"{record['width']}x{record['height']}x{record['num_frames']}, {record['scheduler']}",
        ]
    )
