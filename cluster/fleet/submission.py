"""Jobs that a Ray cluster runs by itself: handed to its job server, and found there again by their output.

Whoever may see the cluster sees a job's command, metadata and runtime environment: nothing secret is in them.
The files of a job go to the machines that run it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ray.exceptions import AuthenticationError
from ray.job_submission import JobSubmissionClient
from requests import RequestException

from framefleet.cluster.fleet.connection import needs_token
from framefleet.pipeline.errors import FleetError, JobError
from framefleet.pipeline.guards.redaction import public_text

_OUTPUT = "framefleet_output"  # the key of its metadata
for _name in ("ray.dashboard.modules.dashboard_sdk", "ray._private.runtime_env.packaging"):
    logging.getLogger(_name).setLevel(logging.WARNING)  # they tell of each package at INFO, on stderr


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """A job on a cluster. address: of its job server. state: as Ray says it; message: more of that."""

    submission_id: str
    address: str
    state: str = "PENDING"
    message: str = ""


def submit_files(address: str | None, files: Path, command: str, *, output: str) -> Submission:
    """Let a cluster run a command in a copy of a folder; return at once. output: public, to find it by.

    address: of the job server; None: as `ray job` finds it. Raises FleetError.
    """
    with _client(address) as client:
        submission_id = client.submit_job(
            entrypoint=command, runtime_env={"working_dir": str(files)}, metadata={_OUTPUT: output}
        )
        return Submission(submission_id=submission_id, address=client.get_address())


def find_submission(address: str | None, output: str) -> Submission:
    """Return the last job that was submitted for an output. Raises JobError for none, FleetError."""
    with _client(address) as client:
        ours = [job for job in client.list_jobs() if (job.metadata or {}).get(_OUTPUT) == output]
        if not ours:
            raise JobError(
                f"no job for {output} was submitted to {client.get_address()}",
                "give the address of its cluster's job server with --address",
            )
        newest = max(ours, key=lambda job: job.start_time or 0)
        return Submission(
            submission_id=newest.submission_id or "",
            address=client.get_address(),
            state=str(newest.status),
            message=public_text(newest.message or ""),
        )


def logs_of(submission: Submission, *, follow: bool) -> Iterator[str]:
    """Yield what a job has printed, in pieces. follow: until the job ends. Raises FleetError."""
    with _client(submission.address) as client:
        if not follow:
            yield client.get_job_logs(submission.submission_id)
            return
        pieces = client.tail_job_logs(submission.submission_id)

        async def following() -> str | None:
            return await anext(pieces, None)

        with asyncio.Runner() as runner:
            while (piece := runner.run(following())) is not None:
                yield piece


@contextmanager
def _client(address: str | None) -> Iterator[JobSubmissionClient]:
    where = "the Ray job server" + (f" at {address}" if address else "")
    try:
        yield JobSubmissionClient(address)
    except AuthenticationError as error:
        raise needs_token(where) from error
    except (ConnectionError, RequestException, RuntimeError, ValueError) as error:  # Ray's has no class
        raise FleetError(
            f"{where} cannot be used: {public_text(str(error))}",
            "check its address, e.g. --address http://127.0.0.1:8265, or try again in a minute",
        ) from error
