"""What goes to a cluster with a job, and what comes back from its job server: here the server is made up."""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from ray.job_submission import JobDetails, JobStatus

import framefleet
from framefleet.jobs.job.file import load_job
from framefleet.pipeline.errors import FleetError, JobError, OutputInUse
from framefleet.plugins.deploy import submission
from framefleet.plugins.deploy.submission import Submission, find_submission, logs_of
from tests.commands import command
from tests.jobs import write_job

ODD = ["a \x7f b", "a \u2028 b \u2029", "a \x85 b", "🦊 一只猫"]


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mock:
    """A client whose jobs are in `there`, as the cluster gets them."""

    def submit_job(*, runtime_env: dict[str, Any], **_: Any) -> str:
        shutil.copytree(runtime_env["working_dir"], tmp_path / "there")
        return "raysubmit_1"

    client = Mock(**{"submit_job.side_effect": submit_job, "get_address.return_value": "http://ray:8265"})
    client.list_jobs.return_value = []
    monkeypatch.setattr(submission, "JobSubmissionClient", lambda _: client)
    return client


def values(tmp_path: Path, **more: Any) -> dict[str, Any]:
    return {"output": str(tmp_path / "out"), "model": "m", "sweep": {"prompt": ["a"]}, **more}


def a_submission(tmp_path: Path, name: str, state: str, start_time: int) -> JobDetails:
    return JobDetails(
        type="SUBMISSION",
        submission_id=name,
        status=JobStatus(state),
        entrypoint="framefleet render",
        metadata={"framefleet_output": f"{tmp_path}/out"},
        start_time=start_time,
    )


def test_a_job_that_was_submitted_and_has_not_ended_is_not_submitted_again(
    tmp_path: Path, client: Mock
) -> None:
    client.list_jobs.return_value = [a_submission(tmp_path, "ended", "FAILED", 1)]
    job = values(tmp_path, sweep={"prompt": ODD})
    framefleet.submit(job)
    assert load_job(tmp_path / "there/job.json").sweep == load_job(job).sweep
    client.list_jobs.return_value.append(a_submission(tmp_path, "begins", "PENDING", 2))
    with pytest.raises(OutputInUse, match="was submitted as begins, and has not ended") as refused:
        framefleet.submit(values(tmp_path))
    assert "ray job stop --address http://ray:8265 begins" in refused.value.fix
    assert client.submit_job.call_count == 1
    works, refusal = (a_submission(tmp_path, *of) for of in (("a", "RUNNING", 1), ("b", "FAILED", 2)))
    client.list_jobs.return_value = [works, refusal]  # of two that were submitted at once
    assert find_submission(None, f"{tmp_path}/out").submission_id == "a"


def test_a_job_that_the_cluster_would_refuse_is_refused_here(tmp_path: Path, client: Mock) -> None:
    many = [f"{number:05d} " + "x" * 94 for number in range(4000)]
    with pytest.raises(JobError, match="for the cluster, is longer than 262,144 characters"):
        framefleet.submit(values(tmp_path, sweep={"prompt": many}))
    assert not client.submit_job.called


@pytest.mark.parametrize("program", ["./notify.sh", "tools/notify.sh", "../notify.sh"])
def test_the_program_of_the_end_goes_with_the_job(program: str, tmp_path: Path, client: Mock) -> None:
    (tmp_path / "job/tools").mkdir(parents=True)
    file = tmp_path / "job" / program
    file.write_text("#!/bin/sh")
    job = write_job(tmp_path / "job/job.yaml", values(tmp_path, on_end={"command": [program, "--team"]}))
    refused = command("submit", job)
    assert (refused.exit_code, f"on_end.command: {program} is not executable" in refused.stderr) == (2, True)
    assert f"hint: run chmod +x {tmp_path}/job/{program}" in refused.stderr
    file.chmod(0o755)
    assert command("submit", job).exit_code == 0
    on_end = load_job(tmp_path / "there/job.json").on_end  # type: ignore[attr-defined]
    shipped, *arguments = on_end.command
    assert arguments == ["--team"]
    assert os.access(tmp_path / "there" / shipped, os.X_OK)
    assert (tmp_path / "there" / shipped).read_text() == "#!/bin/sh"


def test_a_program_elsewhere_is_named_and_not_sent(tmp_path: Path, client: Mock) -> None:
    job = write_job(tmp_path / "job.yaml", values(tmp_path, on_end={"command": ["/opt/notify", "x"]}))
    submitted = command("submit", job)
    assert f"files that are here at output {tmp_path}/out, on_end.command /opt/notify\n" in submitted.stderr
    assert [path.name for path in (tmp_path / "there").iterdir()] == ["job.json"]


def test_what_a_submitted_job_printed_is_shown_once_and_for_no_row(tmp_path: Path, client: Mock) -> None:
    failed = a_submission(tmp_path, "raysubmit_1", "FAILED", 1)
    failed.message = "Job entrypoint command failed with exit code 2, last available logs:\nerror: no"
    client.list_jobs.return_value, client.get_job_logs.return_value = [failed], "error: no\n"
    shown = command("logs", tmp_path / "out", "--submitted")
    assert (shown.exit_code, shown.output.count("error: no")) == (0, 1), shown.output
    assert "raysubmit_1 is failed: Job entrypoint command failed with exit code 2\n" in shown.stderr
    refused = command("logs", tmp_path / "out", "raysubmit_1", "--submitted")
    assert refused.exit_code == 2 and "ROW_ID has no effect with --submitted" in refused.stderr


class _Log:
    """A log of two pieces; then the job goes on for ever, or the server fails."""

    def __init__(self, *, fails: bool = False) -> None:
        self._fails = fails
        self.is_closed = False

    async def __call__(self, submission_id: str) -> AsyncIterator[str]:
        try:
            for piece in ("one", "two"):
                yield piece
            if self._fails:
                raise RuntimeError("the connection broke")
            await asyncio.sleep(3600)
        finally:
            self.is_closed = True


async def first_pieces(num: int) -> list[str]:
    """Read in a thread with an event loop, as a notebook's cell does, and leave the rest."""
    pieces = logs_of(Submission(submission_id="raysubmit_1", address="http://ray:8265"), follow=True)
    found = [next(pieces) for _ in range(num)]
    pieces.close()  # type: ignore[attr-defined]
    return found


def test_a_notebook_follows_a_job_may_leave_it_and_hears_of_a_server_that_fails(client: Mock) -> None:
    client.tail_job_logs = log = _Log()
    before = {*threading.enumerate()}  # of which some may be ending
    assert asyncio.run(first_pieces(2)) == ["one", "two"]
    assert log.is_closed and not {*threading.enumerate()} - before
    client.tail_job_logs = _Log(fails=True)
    with pytest.raises(FleetError, match="the connection broke"):
        asyncio.run(first_pieces(3))
