"""Rows that cannot be rendered: the table is refused, also at its end, or they are left out and listed."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.dataset as ds
import pytest

import framefleet
from framefleet import Progress, TableError
from framefleet.pipeline.rows.tables.json_lines import BATCH_ROWS
from tests.commands import command
from tests.jobs import job_values, prompt_rows, records_of, write_job, write_table

BAD_ROWS = [*prompt_rows(2), {**prompt_rows(1)[0], "seed": -1}, {**prompt_rows(1)[0], "prompt": ""}]


def test_a_table_of_invalid_rows_only_is_refused_even_when_they_are_skipped(tmp_path: Path) -> None:
    table = write_table(tmp_path / "t.parquet", BAD_ROWS[2:])
    with pytest.raises(TableError, match="2 of 2 rows cannot be rendered"):
        framefleet.render(job_values(table, tmp_path / "out", on_invalid="skip"))


def test_a_job_that_skips_no_row_lists_none_and_may_have_columns_of_that_list(
    tmp_path: Path, ray_cluster: str
) -> None:
    rows = [row | {"row_index": 7, "reason": "theirs", "fix": "none"} for row in BAD_ROWS[:3]]
    table = write_table(tmp_path / "t.parquet", rows)
    values = job_values(table, tmp_path / "out", address=ray_cluster)
    assert framefleet.render(values, limit=2).done == 2
    assert not framefleet.status(tmp_path / "out").num_invalid


@pytest.mark.promise("The job then stops", "Every distinct row ends up with exactly one record")
def test_skipped_rows_are_listed_once_however_often_the_job_runs(tmp_path: Path, ray_cluster: str) -> None:
    table = write_table(tmp_path / "t.parquet", BAD_ROWS)
    values = job_values(table, tmp_path / "out", on_invalid="skip", address=ray_cluster)
    shown: list[Progress] = []
    summary = framefleet.render(values, on_progress=shown.append)
    assert (summary.done, summary.failed, summary.num_invalid) == (2, 0, 2)
    assert "2 left out" in repr(summary)
    assert shown[-1].total == 2
    assert framefleet.render(values).done == 0
    invalid = ds.dataset(tmp_path / "out" / "invalid").to_table().to_pylist()
    assert [(row["row_index"], row["tag"]) for row in invalid] == [(2, "row 0"), (3, "row 0")]
    assert "seed is -1" in invalid[0]["reason"]
    # Corrected, the rows are no longer listed, though nothing skips rows any more.
    corrected = [*BAD_ROWS[:2], {**BAD_ROWS[2], "seed": 7}, {**BAD_ROWS[3], "prompt": "a kite"}]
    write_table(tmp_path / "t.parquet", corrected)
    del values["on_invalid"]
    assert framefleet.render(values).done == 2
    assert not framefleet.status(tmp_path / "out").num_invalid


@pytest.mark.promise("The job then stops", "exit code 2")
def test_a_bad_last_row_ends_the_worker_that_started_and_leaves_nothing(
    tmp_path: Path, ray_cluster: str
) -> None:
    good = {"prompt": "a red ball", "seed": 1}
    bad = {"prompt": "a red ball", "seed": -1}
    table = tmp_path / "t.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in [*[good] * BATCH_ROWS, bad]))
    job = write_job(tmp_path / "job.yaml", job_values(table, tmp_path / "out", address=ray_cluster))
    ended = command("render", job, exits=2)
    assert f"row {BATCH_ROWS}" in ended.stderr
    assert not (tmp_path / "out").exists()
    assert "1 row rendered in" in command("render", job, "--set", "on_invalid=skip").stderr
    assert len(records_of(tmp_path / "out")) == 1
