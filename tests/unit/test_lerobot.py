"""A LeRobot dataset as a table: each episode and camera is a row, and its video a part of a shared file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from framefleet.pipeline.errors import TableError
from framefleet.pipeline.rows.tables.table import folder_of, open_table
from tests.commands import command
from tests.lerobot_dataset import CAMERAS, LENGTHS, TASKS, dataset
from tests.unit.test_video_parts import RATE

SHAPES = Path(__file__).parents[2] / "plugins/demo/shapes/model"


def test_each_episode_and_camera_is_a_row(tmp_path: Path) -> None:
    place = f"lerobot://{dataset(tmp_path / 'pick')}"
    table = open_table(place)
    (batch,) = [batch for _, batch in table.batches()]
    rows = batch.to_pylist()
    assert [(row["episode"], row["camera"], row["episode_frames"]) for row in rows] == [
        (number, camera, length) for number, length in enumerate(LENGTHS) for camera in CAMERAS
    ]
    assert [row["prompt"] for row in rows[::2]] == [TASKS[0], "; ".join(TASKS), TASKS[0]]
    assert folder_of(place) == str(tmp_path / "pick") and {row["fps"] for row in rows} == {RATE}


def test_a_job_plans_the_episodes_of_a_dataset_next_to_it(tmp_path: Path) -> None:
    dataset(tmp_path / "pick")
    defaults = {"num_inference_steps": 2, "strength": 0.5, "num_frames": 5, "seed": 1}
    job = {"model": str(SHAPES), "recipe": "video_to_video", "defaults": defaults, "output": "out"}
    (tmp_path / "job.yaml").write_text(json.dumps({**job, "table": "lerobot://pick"}))
    planned = command("plan", tmp_path / "job.yaml")
    assert planned.exit_code == 0 and "6 rows" in planned.output, planned.output
    (tmp_path / "job.yaml").write_text(json.dumps({**job, "table": "lerobot://pikc"}))
    assert "no LeRobot dataset" in command("plan", tmp_path / "job.yaml").output


@pytest.mark.parametrize(
    ("info", "problem"),
    [
        ({"codebase_version": "v2.1"}, "of version 'v2.1', not v3.0"),
        ({"fps": "fast"}, "fps in meta/info.json is 'fast'"),
        ({"features": {"action": {"dtype": "float32"}}}, "has no videos"),
        ({"video_path": "{video_key.__class__}/{file_index:99999999999d}"}, "video_path is"),
        ({"features": {"top": {"dtype": "video"}}}, "episode 0 says nothing of use about top"),
    ],
)
def test_what_is_no_such_dataset_is_refused(info: dict[str, Any], problem: str, tmp_path: Path) -> None:
    with pytest.raises(TableError) as refused:
        open_table(f"lerobot://{dataset(tmp_path / 'pick', **info)}")
    assert problem in refused.value.problem and refused.value.fix


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(TableError, match="no LeRobot dataset"):
            open_table(f"lerobot://{place}")
