"""A job with a budget: it stops by itself, keeps what is done, and goes on when it may spend more."""

from __future__ import annotations

from pathlib import Path

from tests.commands import command
from tests.jobs import check_whole, job_values, prompt_rows, records_of, write_job, write_table


def test_a_job_stops_at_its_budget_and_goes_on_with_a_larger_one(tmp_path: Path, ray_cluster: str) -> None:
    table = write_table(tmp_path / "t.parquet", prompt_rows(40))
    values = job_values(table, tmp_path / "out", address=ray_cluster, budget={"bytes": 1})
    job = write_job(tmp_path / "job.yaml", values)
    ended = command("render", job)
    assert ended.exit_code == 1
    assert "stopped: budget.bytes is reached (1 bytes): " in ended.stderr
    done = len(records_of(tmp_path / "out"))
    assert 0 < done < 40
    check_whole(tmp_path / "out")
    again = command("render", job)
    assert (again.exit_code, len(records_of(tmp_path / "out"))) == (1, done)
    assert "stopped: budget.bytes is reached" in again.stderr
    assert command("render", job, "--set", "budget.bytes=1GB").exit_code == 0
    assert len(records_of(tmp_path / "out")) == 40
