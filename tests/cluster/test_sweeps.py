"""A sweep on a fleet: every combination a clip, what is added rendered alone, and any of them once more."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import framefleet
from framefleet.plugins.keep.replay.replay import replay
from tests.commands import command
from tests.jobs import job_values, records_of, write_job

SWEEP = {"prompt": "a {color} ball", "color": ["red", "blue"], "guidance_scale": [1, 3]}


def seen(output: Path) -> set[tuple[str, float, int, str]]:
    found = set()
    for record in records_of(output):
        arguments = json.loads(record["arguments"])
        color = record.get("color")
        found.add((arguments["prompt"], arguments["guidance_scale"], record["seed"], color))
    return found


def test_a_sweep_is_rendered_and_what_is_added_to_it_alone(tmp_path: Path, ray_cluster: str) -> None:
    output = tmp_path / "out"
    values: dict[str, Any] = job_values(tmp_path, output, address=ray_cluster) | {"sweep": SWEEP}
    del values["table"]
    job = write_job(tmp_path / "job.yaml", values)
    first = command("render", job, "--seeds", "7")
    assert "x 1 prompt x 1 seed = 4 rows, 0 done, 4 to render" in first.stderr
    longer = command("render", job, "--seeds", "7-8", "--sweep", "color=blue,red")
    assert "= 8 rows, 4 done, 4 to render" in longer.stderr
    assert seen(output) == {
        (f"a {color} ball", scale, seed, color)
        for color in ("red", "blue")
        for scale in (1.0, 3.0)
        for seed in (7, 8)
    }
    assert replay(str(output), records_of(output)[0]["row_id"]).is_equal
    given = framefleet.render(values | {"sweep": {"seed": "0-1"}, "output": f"{output}-2"}, table=["a fox"])
    assert given.done == 2
