"""Request the URLs of `heartbeat` when a run starts and ends, so that a monitor notices a missing run."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from framefleet.api.errors import OutputInUse
from framefleet.api.jobs import Job, Summary
from framefleet.pipeline.guards.mistakes import Mistakes
from framefleet.plugins.notify.on_end import MAX_TRIES, host_of, send_request, tried, url_at
from framefleet.plugins.notify.section import HeartbeatSection

_SECTION = "heartbeat"
_START_S = 1.0  # how long an interrupted run waits for its start request
# Per run, since a run reports its start once, even if it renders several outputs.
_STARTING: ContextVar[threading.Thread | None] = ContextVar("starting", default=None)


def checked_urls(job: Job) -> dict[str, str]:
    """Return the section's URLs. Raises JobError if their environment variables are not set."""
    wanted: HeartbeatSection = getattr(job, _SECTION)
    urls, mistakes = {}, Mistakes()
    for key in ("start", "end", "failed"):
        with mistakes.noted():
            if url := getattr(wanted, key):
                urls[key] = url_at(f"{_SECTION}.{key}", url)
    mistakes.report()
    return urls


@contextmanager
def beating(job: Job) -> Iterator[Callable[[Summary], None]]:
    """Yield a function for the summary of a run, and report how it ended. Failed requests are only logged.

    Raises JobError for URLs whose environment variables are not set.
    """
    urls = checked_urls(job)
    starting = threading.Thread(target=_ping, args=("start", urls.get("start")), daemon=True)
    token = _STARTING.set(starting)
    summaries: list[Summary] = []
    is_well, num_attempts = False, MAX_TRIES
    try:
        yield summaries.append
        is_well = not summaries[0].exit_code
    except OutputInUse:  # the run that uses the output will report its end
        urls.clear()
        raise
    except BaseException as error:  # an interrupted run has no time for a second attempt
        num_attempts = MAX_TRIES if isinstance(error, Exception) else 1
        raise
    finally:
        _STARTING.reset(token)
        if starting.ident is not None:  # the last request must be the one for the end
            starting.join(None if num_attempts > 1 else _START_S)
        key = "failed" if "failed" in urls and not is_well else "end"
        _ping(key, urls.get(key), num_attempts)


def begin() -> None:
    """Report the start of the run, once. A monitor that does not answer delays nothing."""
    starting = _STARTING.get()
    if starting and starting.ident is None:
        starting.start()


def _ping(key: str, url: str | None, num_attempts: int = MAX_TRIES) -> None:
    if url:
        problem = f"heartbeat.{key}: the request to {host_of(url)} failed"
        tried(lambda: send_request(url), problem, num_attempts)
