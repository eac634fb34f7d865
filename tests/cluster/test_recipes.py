"""A recipe on a fleet: per-row lengths and schedules of guidance, and the same clip again from its record."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import framefleet
from framefleet.jobs.keep.replay.replay import replay
from framefleet.pipeline.outputs.frames.frames import frames_sha256
from framefleet.pipeline.outputs.frames.result import to_rendered
from framefleet.pipeline.recipes.recipe import BUILT_IN
from tests.jobs import job_values, prompt_rows, records_of, write_table
from tests.tiny import SMALLEST, tiny

NUM_ROWS = 8
FPS = 8.0


def test_rows_of_extend_are_as_long_as_asked_and_can_be_rendered_again(
    tmp_path: Path, ray_cluster: str
) -> None:
    rows = prompt_rows(NUM_ROWS)
    for index, row in enumerate(rows):
        row["duration_s"] = 1 + index / 4
        row["guidance_scale"] = ("3.5", "linear(6, 2)")[index % 2]
    table, output = write_table(tmp_path / "prompts.parquet", rows), str(tmp_path / "out")
    media = {"format": "mkv", "fps": FPS}
    job = job_values(table, output, model="wan_ti2v", recipe="extend", media=media, address=ray_cluster)
    assert framefleet.render(job).done == NUM_ROWS
    records = {record["seed"]: record for record in records_of(output)}
    assert [records[seed]["num_frames"] for seed in range(NUM_ROWS)] == [8, 10, 12, 14, 16, 18, 20, 22]
    assert json.loads(records[1]["arguments"])["guidance_scale"] == "linear(6.0, 2.0)"
    pipe = framefleet.load_model(tiny("wan_ti2v")).pipe
    for seed in (1, 2):
        arguments = SMALLEST["wan_ti2v"] | {"max_sequence_length": 32, **rows[seed]}
        del arguments["seed"], arguments["tag"]
        arguments["guidance_scale"] = (None, "linear(6, 2)", 3.5)[seed]
        request = framefleet.Request(arguments=arguments, seed=seed, recipe="extend", fps=FPS)
        rendered = to_rendered(BUILT_IN["extend"].render(copy.copy(pipe), request), pipe)
        assert frames_sha256(rendered.frames) == records[seed]["frames_sha256"]
    assert replay(output, records[3]["row_id"]).is_equal


def test_rows_of_a_second_model_are_rendered_by_workers_and_again(tmp_path: Path, ray_cluster: str) -> None:
    rows = [{"prompt": "a ball", "seed": seed, "painter": "flux"} for seed in range(2)]
    table, output = write_table(tmp_path / "prompts.parquet", rows), str(tmp_path / "out")
    job = job_values(table, output, model="opensora", recipe="text_to_image_to_video", address=ray_cluster)
    job["defaults"] = {**SMALLEST["opensora"], "image_height": 32, "image_width": 32, "image_steps": 2}
    job |= {"columns": {"image_model": "painter"}, "second_models": {"flux": str(tiny("flux"))}}
    assert framefleet.render(job).done == len(rows)
    records = records_of(output)
    assert {json.loads(record["arguments"])["image_model"]["name"] for record in records} == {"flux"}
    assert replay(output, records[0]["row_id"]).is_equal
