"""A job with a budget: it stops by itself, keeps what is done, and goes on when it may spend more."""

from __future__ import annotations

import json
from pathlib import Path

from framefleet.pipeline.errors import bytes_text
from tests.commands import command
from tests.jobs import check_whole, job_values, prompt_rows, records_of, write_job, write_table


def test_a_job_stops_at_its_budget_and_goes_on_with_a_larger_one(tmp_path: Path, ray_cluster: str) -> None:
    table = write_table(tmp_path / "t.parquet", prompt_rows(40))
    values = job_values(table, tmp_path / "out", address=ray_cluster, budget={"bytes": 1})
    job = write_job(tmp_path / "job.yaml", values)
    ended = command("render", job, exits=1)
    records = records_of(tmp_path / "out")
    done, used = len(records), bytes_text(sum(record["bytes"] for record in records))
    assert f"stopped: budget.bytes is reached: all runs used {used}, 1 byte is allowed" in ended.stderr
    assert f"to continue: raise budget.bytes above {used} and run the same" in ended.stderr
    assert "stopped: budget.bytes is reached" in (shown := command("status", tmp_path / "out").stdout)
    assert f"to continue: raise budget.bytes above {used}" in shown
    assert 0 < done < 40
    check_whole(tmp_path / "out")
    again = command("render", job, "--json", "--log-format", "json")
    assert (again.exit_code, len(records_of(tmp_path / "out"))) == (1, done)
    levels = {line["message"]: line["level"] for line in map(json.loads, again.stderr.splitlines())}
    assert [level for line, level in levels.items() if line.startswith("stopped: ")] == ["warning"]
    assert [*levels.items()][-1] == ("the run has ended with exit code 1", "warning")
    assert f"to continue: raise budget.bytes above {used}" in command("status", tmp_path / "out").stdout
    whole = command("render", job, "--set", "budget.bytes=1GB")
    assert (whole.exit_code, f"budget: enough for all {40 - done} rows left" in whole.stderr) == (0, True)
    assert len(records_of(tmp_path / "out")) == 40
