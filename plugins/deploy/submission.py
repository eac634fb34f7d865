"""Submit a copy of a job to a Ray cluster, which runs it without this machine, and read what it prints.

The modules and the program that the job names are sent along. Everybody with access to the cluster can see a
job's command, metadata and runtime environment, so these have no secrets. Files are sent to its machines.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from tempfile import TemporaryDirectory
from typing import Any

from ray.exceptions import AuthenticationError, RayError
from ray.job_submission import JobDetails, JobSubmissionClient
from requests import RequestException

from framefleet.api.errors import FleetError, FramefleetError, JobError, OutputInUse, command, quoted
from framefleet.api.jobs import Job, load_job, store_of_job
from framefleet.api.models import find_recipe
from framefleet.api.outputs import Store, dated
from framefleet.api.texts import public_text
from framefleet.cluster.driver.epoch_lock import BEAT_S
from framefleet.cluster.driver.lock import Holder, in_use, newest_holder
from framefleet.cluster.fleet.actors import modules_to_ship
from framefleet.cluster.fleet.connection import needs_token
from framefleet.jobs.job.columns import open_columns
from framefleet.jobs.job.output import base_of
from framefleet.jobs.job.paths import absolute_paths
from framefleet.jobs.job.yaml_text import parse_yaml, yaml_of
from framefleet.jobs.render.python_table import stored_rows
from framefleet.jobs.show.console import SUBMITTED
from framefleet.pipeline.guards.mistakes import no_program
from framefleet.pipeline.outputs.stores.retries import Soon

_FILE = "job.json"
_PROGRAMS = "framefleet_on_end"  # folder among the sent files; no module has this name
_COMMAND = f"{SUBMITTED}=1 {command('render', _FILE, '--set', 'fleet.address=auto')}"
_VARIABLES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")  # Ray prefers these over an address
_LAST_LOGS = ", last available logs"  # in a message, the end of the log follows
_PATIENCE_S = 5.0  # for the output, which this machine may not be able to reach
_OUTPUT = "framefleet_output"  # key of the metadata
for _name in ("ray.dashboard.modules.dashboard_sdk", "ray._private.runtime_env.packaging"):
    logging.getLogger(_name).setLevel(logging.WARNING)  # at INFO, they log every package on stderr


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """A job on a cluster. address: of its job server. state, message: from Ray."""

    submission_id: str
    address: str
    state: str = "PENDING"
    message: str = ""


def submit(
    job: Job | str | Path | Mapping[str, Any], *, table: object = None, address: str | None = None
) -> Submission:
    """Submit a job to a Ray cluster, so that this machine may be switched off; return at once.

    table: rows instead of the job's table, as for `render`. address: of the cluster's job server, e.g.
    http://127.0.0.1:8265; None: as for `ray job`. The cluster must be able to reach the job's table, model
    and output. Modules of its recipe and scores are sent along, as is the program of `on_end` if it has a
    relative path. Raises OutputInUse if a driver or a submitted job is still using the output, JobError, and
    FleetError.
    """
    with nullcontext(load_job(job)) if table is None else stored_rows(job, table) as loaded:
        output = store_of_job(loaded).url_of("")
        if holder := _user_of(loaded):
            raise in_use(output, holder)
        with TemporaryDirectory(prefix="framefleet-") as name:
            folder = Path(name)
            ignore = shutil.ignore_patterns("__pycache__")
            recipes, columns = [find_recipe(loaded.recipe, loaded.folder)], open_columns(loaded)
            for module in map(Path, modules_to_ship(recipes, columns)):
                if module.is_dir():
                    shutil.copytree(module, folder / module.name, ignore=ignore)
                else:
                    shutil.copy(module, folder)
            values = values_elsewhere(loaded)
            _ship_program(values, loaded, folder)
            text = yaml_of(values)
            parse_yaml(text, source="the job, written as JSON for the cluster,")  # raises if not valid
            file = os.open(folder / _FILE, os.O_WRONLY | os.O_CREAT, 0o600)  # also the mode on other machines
            with open(file, "w", encoding="utf-8") as opened:
                opened.write(text)
            with _client(address) as client:
                for other in _submitted(client, output):
                    if not other.status.is_terminal():
                        raise _under_way(output, other.submission_id or "", client.get_address())
                submission_id = client.submit_job(
                    entrypoint=_COMMAND, runtime_env={"working_dir": name}, metadata={_OUTPUT: output}
                )
                return Submission(submission_id=submission_id, address=client.get_address())


def _under_way(output: str, submission_id: str, address: str) -> OutputInUse:
    begun = command("stop", output)
    not_begun = quoted("ray", "job", "stop", "--address", address, submission_id)
    return OutputInUse(
        f"the job for {output} was submitted as {submission_id}, and has not ended",
        f"wait for it to end, stop it ({begun}; before its driver starts, {not_begun}), or choose another "
        "output",
    )


def _ship_program(values: dict[str, Any], job: Job, folder: Path) -> None:
    """Copy the program of `on_end`, if its path is relative to the job file's folder.

    Raises JobError if it cannot be run.
    """
    program = program_at_end(values)
    if "/" not in program or program.startswith("/"):
        return
    in_folder = os.path.join(job.folder or "", program)
    if not (file := shutil.which(in_folder)):
        raise no_program("on_end.command", program, in_folder)
    (folder / _PROGRAMS).mkdir()
    shutil.copy(file, folder / _PROGRAMS)
    values["on_end"]["command"][0] = f"{_PROGRAMS}/{Path(file).name}"


def program_at_end(values: Mapping[str, Any]) -> str:
    """Return the program of `on_end` in the values of a job, or ""."""
    return next(iter(values.get("on_end", {}).get("command", ())), "")


def values_elsewhere(job: Job) -> dict[str, Any]:
    """Return the values of a job, with paths that are also valid in another folder."""
    values = job.model_dump(mode="json", exclude_unset=True)
    absolute_paths(values)
    if job.table is None and job.inputs.base is None:
        values["inputs"] = {**values.get("inputs", {}), "base": os.path.abspath(base_of(job))}
    return values


def logs(
    output: str,
    *,
    address: str | None = None,
    follow: bool = False,
    storage_options: Mapping[str, Any] | None = None,
) -> Iterator[str]:
    """Yield what the running or last submitted job for an output has printed, in pieces.

    address: as for `submit`. follow: until it ends. storage_options: for fsspec. Raises JobError if none was
    submitted, and FleetError.
    """
    submission = find_submission(address, Store(dated(output), storage_options).url_of(""))
    return logs_of(submission, follow=follow)


def _user_of(job: Job) -> Holder | None:
    """Return the current driver of a job's output: its process is on this machine, or it has just beaten."""
    soon = Soon("submit")  # maybe only the cluster can reach the output

    def read() -> Holder | None:
        with suppress(FramefleetError):
            store = Store(job.output, job.storage_options, outage_s=_PATIENCE_S)
            return newest_holder(store)
        return None

    holder = soon.ask(read)
    if holder is None or holder.is_gone():
        return None
    if not holder.runs_elsewhere():
        return holder
    began = time.monotonic()
    while time.monotonic() - began < 1.5 * BEAT_S:
        time.sleep(1.0)
        if (now := soon.ask(read)) and now.beat != holder.beat:
            return None if now.ended else now
    return None


def find_submission(address: str | None, output: str) -> Submission:
    """Return the running or last submitted job for an output. Raises JobError, FleetError."""
    with _client(address) as client:
        ours = _submitted(client, output)
        if not ours:
            raise JobError(
                f"no job for {output} was submitted to {client.get_address()}",
                "use --address with its cluster's job server",
            )
        # If two were submitted at the same time, one was refused.
        newest = max(ours, key=lambda job: (not job.status.is_terminal(), job.start_time or 0))
        return Submission(
            submission_id=newest.submission_id or "",
            address=client.get_address(),
            state=str(newest.status),
            message=public_text((newest.message or "").partition(_LAST_LOGS)[0]),
        )


def _submitted(client: JobSubmissionClient, output: str) -> list[JobDetails]:
    return [job for job in client.list_jobs() if (job.metadata or {}).get(_OUTPUT) == output]


def logs_of(submission: Submission, *, follow: bool) -> Iterator[str]:
    """Yield what a job has printed, in pieces. follow: until the job ends. Raises FleetError."""
    with _client(submission.address) as client:
        if not follow:
            yield client.get_job_logs(submission.submission_id)
            return
        pieces, loop = SimpleQueue[str | None](), asyncio.new_event_loop()

        async def following() -> None:
            async for piece in client.tail_job_logs(submission.submission_id):
                pieces.put(piece)

        task = loop.create_task(following())
        with ThreadPoolExecutor(1) as thread, closing(loop):
            ended = thread.submit(loop.run_until_complete, task)  # a notebook's thread already has a loop
            ended.add_done_callback(lambda _: pieces.put(None))
            try:
                while True:
                    try:  # with a timeout, since a signal just before a thread waits does not wake it
                        piece = pieces.get(timeout=0.5)
                    except Empty:
                        continue
                    if piece is None:
                        break
                    yield piece
                ended.result()
            finally:
                loop.call_soon_threadsafe(task.cancel)
                wait([ended])


@contextmanager
def _client(address: str | None) -> Iterator[JobSubmissionClient]:
    variable = next((name for name in _VARIABLES if os.environ.get(name)), None)
    source = variable if variable and not address else "--address"
    url = address or os.environ.get(source)
    where = "the Ray job server" + (f" at {url}" if url else "")
    if (url or "").startswith("ray://"):  # it would wait for this
        raise JobError(f"{source} is {url}, for Ray Client", "use the job server: http://HOST:8265")
    overriding = {name: os.environ.pop(name) for name in _VARIABLES if address and name in os.environ}
    try:
        try:
            client = JobSubmissionClient(address)
        finally:
            os.environ.update(overriding)
        yield client
    except AuthenticationError as error:
        raise needs_token(where) from error
    except (ConnectionError, RayError, RequestException, RuntimeError, ValueError) as error:
        fix = (
            f"write {source} as http://HOST:8265 (HOST:PORT without http:// is Ray's own port, not the job "
            "server's); if it has just started, try again in a minute; `framefleet status OUTPUT` needs none"
        )
        if "No available agent" in str(error):
            fix = (
                "try again in a minute; if that does not help, see dashboard_agent.log on the head: another "
                "Ray there may have its port (`ray start --dashboard-agent-listen-port`)"
            )
        raise FleetError(f"{where} cannot be used: {public_text(str(error)).rstrip('.')}", fix) from error
