"""Workers start while a table is still checked: what is found at its end still keeps all from starting."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from framefleet.pipeline.rows.tables.json_lines import BATCH_ROWS
from tests.commands import command
from tests.jobs import job_values, records_of, write_job


@pytest.mark.promise("The job then stops")
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
