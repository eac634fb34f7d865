"""Gets the URLs of `heartbeat` when a run starts and ends: a monitor notices a run that did not happen."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from framefleet.cluster.driver.progress import Summary
from framefleet.jobs.job.schema import Job
from framefleet.pipeline.errors import OutputInUse
from framefleet.plugins.notify.on_end import MAX_TRIES, host_of, send_request, tried, url_at
from framefleet.plugins.notify.section import HeartbeatSection

_SECTION = "heartbeat"
_START_S = 1.0  # how long an interrupted run waits for the request of its start


def checked_urls(job: Job) -> dict[str, str]:
    """Return the section's addresses. Raises JobError for those whose environment variables are not set."""
    wanted: HeartbeatSection = getattr(job, _SECTION)
    keys = ("start", "end", "failed")
    return {key: url_at(f"{_SECTION}.{key}", url) for key in keys if (url := getattr(wanted, key))}


@contextmanager
def beating(job: Job) -> Iterator[Callable[[Summary], None]]:
    """Yield what takes the summary of a run; say how it ended. Never fails for it.

    Raises JobError for URLs whose environment variables are not set.
    """
    urls = checked_urls(job)
    summaries: list[Summary] = []
    is_well, num_attempts = False, MAX_TRIES
    try:
        yield summaries.append
        is_well = not summaries[0].exit_code
    except OutputInUse:  # the run that has the output reports its own end
        urls.clear()
        raise
    except BaseException as error:  # who is interrupted has no time to ask twice
        num_attempts = MAX_TRIES if isinstance(error, Exception) else 1
        raise
    finally:
        key = "failed" if "failed" in urls and not is_well else "end"
        _ping(key, urls.get(key), num_attempts)


@contextmanager
def begun(job: Job) -> Iterator[None]:
    """Say that a run has its output. A monitor that does not answer neither delays nor fails it."""
    starting = threading.Thread(target=_ping, args=("start", checked_urls(job).get("start")), daemon=True)
    starting.start()
    try:
        yield
    except BaseException as error:
        starting.join(None if isinstance(error, Exception) else _START_S)
        raise
    starting.join()  # the last that a monitor hears is how the run ended


def _ping(key: str, url: str | None, num_attempts: int = MAX_TRIES) -> None:
    if url:
        problem = f"heartbeat.{key}: the request to {host_of(url)} failed"
        tried(lambda: send_request(url), problem, num_attempts)
