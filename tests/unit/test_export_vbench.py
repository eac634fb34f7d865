"""Clips are exported under the names that VBench looks for; what it would not find is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import framefleet
from framefleet import JobError, Store
from framefleet.jobs.job.file import load_job
from framefleet.pipeline.rows.sweeps.sweep import open_sweep
from tests.commands import command
from tests.small_output import PROMPT, rendered
from tests.unit.test_sweeps import KINDS


@pytest.fixture
def records(tmp_path: Path) -> list[dict[str, Any]]:
    """Seven clips of prompts that differ, with columns by which they are called otherwise."""
    names = ["a fox", "rain", "a fox", "rain", "a fox", "so/so", "x" * 252]
    return rendered(Store(str(tmp_path / "out")), carried={"name": names})


def test_videos_are_called_by_prompt_and_index_and_lie_alone(
    tmp_path: Path, records: list[dict[str, Any]]
) -> None:
    to = tmp_path / "to"
    command("export", tmp_path / "out", to, "--format", "vbench", "--shard-rows", "3", exits=0)
    names = [f"{PROMPT} {number}-0.mp4" for number in range(7)]
    assert sorted(path.name for path in (to / "videos").iterdir()) == sorted(names)
    rows = pq.read_table(sorted(to.glob("*.parquet"))).to_pylist()
    for row, name, record in zip(rows, names, records, strict=True):
        assert (row["file_name"], row["row_id"]) == (f"videos/{name}", record["row_id"])
        settings = ("seed", "arguments", "scheduler", "recipe", "model_digest", "numerics")
        assert [row[name] for name in settings] == [record[name] for name in settings]
        assert (to / row["file_name"]).read_bytes() == (tmp_path / "out" / record["path"]).read_bytes()


def test_clips_of_a_prompt_are_numbered_in_the_tables_order(
    tmp_path: Path, records: list[dict[str, Any]]
) -> None:
    to = tmp_path / "to"
    asked = {"caption": "{name}", "where": "seed < 5"}
    framefleet.export(str(tmp_path / "out"), str(to), format="vbench", **asked)
    seeds = {row["file_name"]: row["seed"] for row in pq.read_table(to / "shard-000000.parquet").to_pylist()}
    assert seeds == {
        **{f"videos/a fox-{index}.mp4": 2 * index for index in range(3)},
        **{f"videos/rain-{index}.mp4": 2 * index + 1 for index in range(2)},
    }


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"caption": "{name}", "where": "seed = 5"}, "cannot be the name of a file: 'so/so'"),
        ({"caption": "{name}", "where": "seed = 6"}, "cannot be the name of a file: 'xxx"),
        ({"caption": "C:\\{name}", "where": "seed = 1"}, "cannot be the name of a file: 'C:"),
        ({"caption": "", "where": "seed = 6"}, "is empty"),
        ({"validation": 0.5}, "VBench has no splits"),
    ],
)
def test_what_vbench_would_not_find_is_refused(
    options: dict[str, Any], problem: str, tmp_path: Path, records: list[dict[str, Any]]
) -> None:
    with pytest.raises(JobError) as refused:
        framefleet.export(str(tmp_path / "out"), str(tmp_path / "to"), format="vbench", **options)
    assert problem in refused.value.problem and not (tmp_path / "to").exists()


def test_clips_of_other_formats_are_refused(tmp_path: Path) -> None:
    rendered(Store(str(tmp_path / "out")), 2, format="mkv")
    with pytest.raises(JobError, match=r"clips end in \.mkv"):
        framefleet.export(str(tmp_path / "out"), str(tmp_path / "to"), format="vbench")


def test_the_example_renders_five_clips_of_each_prompt(tmp_path: Path) -> None:
    job = tmp_path / "vbench.yaml"
    job.write_bytes((Path(__file__).parents[2] / "examples/vbench.yaml").read_bytes())
    (tmp_path / "all_dimension.txt").write_text("In a still frame, a stop sign\na toilet, frozen in time\n")
    swept = open_sweep(load_job(job).sweep, None, kinds=KINDS, others=(), columns={}, storage_options={})
    assert str(swept) == "2 prompts x 5 seeds = 10 rows"
