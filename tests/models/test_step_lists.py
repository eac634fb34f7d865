"""Rows that list their own noise levels or timesteps, as few-step models are rendered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import pytest

from framefleet import Request, replay, replay_script
from framefleet.pipeline.model.registry import class_named
from framefleet.pipeline.model.specs.spec import inspect_model
from framefleet.pipeline.outputs.frames.frames import frames_sha256, to_frames
from tests.here import render_here
from tests.jobs import job_values, records_of, write_table
from tests.mixed import SIZES
from tests.pictures import clip, write_starts
from tests.rendered import run_script
from tests.tiny import tiny

LCM, EULER = ("lcm", "LCMScheduler"), ("euler", "EulerDiscreteScheduler")
# By tiny pipeline: each row's scheduler by our name and diffusers', and the argument that it lists.
ROWS: dict[str, list[tuple[tuple[str, str] | None, str, list[float]]]] = {
    "wan_v2v": [
        (("flow_euler", "FlowMatchEulerDiscreteScheduler"), "timesteps", [999, 750, 400]),
        (("flow_euler", "FlowMatchEulerDiscreteScheduler"), "timesteps", [900, 500]),
    ],
    "sdxl": [
        (LCM, "timesteps", [999, 759, 499, 259]),
        (LCM, "timesteps", [999, 499]),
        (EULER, "sigmas", [14.6, 6.0, 2.9, 0.5]),
        (EULER, "timesteps", [999, 300]),
    ],
    "flux": [(None, "sigmas", [1.0, 0.75, 0.5, 0.25]), (None, "sigmas", [1.0, 0.5])],
}


# Tuples to the pipeline: of some rows of SDXL.
PAIRS = {"original_size": (64, 48), "crops_coords_top_left": (4, 8)}


def rows_of(name: str, folder: Path) -> list[dict[str, Any]]:
    starts = write_starts(folder, num_frames=5) if name == "wan_v2v" else [None] * 4
    size = {key: value for key, value in SIZES[name].items() if key != "num_inference_steps"}
    rows = []
    for seed, (scheduler, argument, steps) in enumerate(ROWS[name]):
        lists = {each: None for _, each, _ in ROWS[name]} | {argument: steps}
        row = {**size, "prompt": f"a red ball {seed}", "seed": seed, **lists}
        row["scheduler"] = scheduler[0] if scheduler else None
        if name == "sdxl":
            row |= {pair: list(value) if seed % 2 == 0 else None for pair, value in PAIRS.items()}
        rows.append(row | ({"video": starts[seed], "strength": 1.0} if starts[seed] else {}))
    return rows


def plain_digest(pipe: Any, row: dict[str, Any], scheduler: tuple[str, str] | None) -> str:
    """Return the frames of a script without framefleet, which says nothing of the number of steps."""
    own = pipe.scheduler
    if scheduler:
        changes = {"shift": own.config.flow_shift} if scheduler[0] == "flow_euler" else {}
        pipe.scheduler = getattr(diffusers, scheduler[1]).from_config(own.config, **changes)
    given = {key: value for key, value in row.items() if value is not None}
    del given["seed"]
    given.pop("scheduler", None)
    given |= {pair: value for pair, value in PAIRS.items() if pair in given}
    if "video" in given:
        given["video"] = clip(row["seed"], num_frames=5)
    generator = Request(arguments={}, seed=row["seed"]).generator()
    frames = to_frames(pipe(**given, generator=generator, output_type="np"))
    pipe.scheduler = own
    return frames_sha256(frames)


@pytest.mark.parametrize("name", ROWS)
def test_rows_of_listed_steps_have_the_frames_of_plain_calls(name: str, tmp_path: Path) -> None:
    rows, model = rows_of(name, tmp_path), tiny(name)
    values = job_values(write_table(tmp_path / "t.parquet", rows), tmp_path / "out")
    values |= {"model": {"path": str(model), "dtype": "fp32"}, "defaults": {}, "inputs": {"fit": "stretch"}}
    output, row_ids = render_here(values)
    found = {record["seed"]: record["frames_sha256"] for record in records_of(output)}
    pipe = class_named(inspect_model(model).class_name).from_pretrained(model)
    listed = zip(rows, ROWS[name], strict=True)
    assert found == {row["seed"]: plain_digest(pipe, row, scheduler) for row, (scheduler, *_) in listed}
    if name == "wan_v2v":
        assert replay(output, row_ids[0]).is_equal
    else:
        assert run_script(replay_script(output, row_ids[0])).startswith("the same frames: ")
