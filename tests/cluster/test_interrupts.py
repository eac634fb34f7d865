"""Ctrl-C, SIGTERM and a budget that is spent: what was finished is kept, and the same command goes on."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

import framefleet
from framefleet.pipeline.errors import bytes_text
from tests import jobs
from tests.commands import command
from tests.jobs import check_whole, job_values, prompt_rows, records_of, write_job, write_table


# Of SIGTERM, tests/cluster/test_drain.py tells as much.
@pytest.mark.promise("exit code 130")
def test_an_interrupted_job_keeps_what_it_has_and_says_how_to_go_on(tmp_path: Path, ray_cluster: str) -> None:
    rows = jobs.prompt_rows(40)
    values = jobs.job_values(jobs.write_table(tmp_path / "t.parquet", rows), tmp_path / "out")
    # So that a slow machine sends the signal before they are done.
    job = jobs.write_job(tmp_path / "job.yaml", values | {"recipe": "tests.faults:lingers"})
    process = jobs.start_render(job)
    jobs.wait_until(lambda: jobs.num_clips(tmp_path / "out") >= 4, process)
    os.kill(process.pid, signal.SIGINT)
    printed = jobs.finish(process, exits=130, timeout_s=400)
    assert f"hint: to continue: framefleet render {job}" in printed
    assert "Traceback" not in printed
    done = len(jobs.records_of(tmp_path / "out"))
    assert 0 < done < len(rows)
    holder = jobs.holder_of(tmp_path / "out")
    assert holder is not None and holder.ended
    jobs.check_whole(tmp_path / "out")
    assert f"{done} done" in command("render", job, f"--set=fleet.address={ray_cluster}").stderr
    assert len(jobs.records_of(tmp_path / "out")) == len(rows)


def test_a_job_is_stopped_from_elsewhere_and_goes_on(tmp_path: Path, ray_cluster: str) -> None:
    rows, out = jobs.prompt_rows(100), tmp_path / "out"
    values = jobs.job_values(jobs.write_table(tmp_path / "t.parquet", rows), out, address=ray_cluster)
    process = jobs.start_render(
        jobs.write_job(tmp_path / "job.yaml", values | {"recipe": "tests.faults:lingers"})
    )
    jobs.wait_until(lambda: list(out.glob("drivers/*.json")), process)  # their folder is there before
    found = command("stop", out)
    assert found.exit_code == 0 and found.stdout.startswith("asked the driver on "), found.output
    printed = jobs.finish(process, exits=130, timeout_s=400)
    assert "asked to end by `framefleet stop`" in printed and "to continue: framefleet render" in printed
    assert "Ctrl-C again" not in printed, "nobody has pressed it"
    assert len(jobs.records_of(out)) < len(rows)
    jobs.check_whole(out)
    refused = command("stop", out)
    assert refused.exit_code == 2 and "no job writes to" in refused.stderr
    for _ in range(2):
        limited = command("render", tmp_path / "job.yaml", "--limit", "2")
        assert limited.exit_code == 0
    assert "nothing to do: each of the first 2 rows has a record" in limited.stderr


def test_a_job_is_paused_gets_more_rows_and_goes_on(tmp_path: Path, ray_cluster: str) -> None:
    rows, out = jobs.prompt_rows(100), tmp_path / "out"
    values = jobs.job_values(jobs.write_table(tmp_path / "t.parquet", rows), out, address=ray_cluster)
    values |= {"recipe": "tests.faults:lingers", "budget": {"hours": 1}}
    process = jobs.start_render(jobs.write_job(tmp_path / "job.yaml", values))
    jobs.wait_until(lambda: jobs.num_clips(out) >= 2, process)
    assert command("pause", out).stdout.startswith("asked the driver on ")
    while not (found := framefleet.status(str(out))).paused_since or {"rendering", "idle"} & {
        worker.state for worker in found.workers
    }:
        assert process.poll() is None
        time.sleep(0.2)
    assert found.num_left and f"paused since {found.paused_since}" in command("status", out).stdout
    num_before = jobs.num_clips(out)
    time.sleep(2)
    assert process.poll() is None and jobs.num_clips(out) == num_before < len(rows)
    added = framefleet.add(values, jobs.prompt_rows(104)[98:])
    assert added.num_rows == 6
    framefleet.resume(str(out))
    printed = jobs.finish(process, timeout_s=400)
    assert "paused by `framefleet pause`" in printed and "resumed: workers start again" in printed
    assert (
        len({record["row_id"] for record in jobs.records_of(out)})
        == len(jobs.records_of(out))
        == len(rows) + 4
    )
    jobs.check_whole(out)
    found = framefleet.status(str(out))
    assert (found.num_rows, found.num_left, found.paused_since) == (len(rows) + 4, 0, "")


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
