"""Gets the URLs of `heartbeat` when a run starts and ends: a monitor notices a run that did not happen."""

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
_START_S = 1.0  # how long an interrupted run waits for the request of its start
# Of the run: it says so once, however many outputs it renders, and however often.
_STARTING: ContextVar[threading.Thread | None] = ContextVar("starting", default=None)


def checked_urls(job: Job) -> dict[str, str]:
    """Return the section's addresses. Raises JobError for those whose environment variables are not set."""
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
    """Yield what takes the summary of a run; say how it ended. Never fails for it.

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
    except OutputInUse:  # the run that has the output reports its own end
        urls.clear()
        raise
    except BaseException as error:  # who is interrupted has no time to ask twice
        num_attempts = MAX_TRIES if isinstance(error, Exception) else 1
        raise
    finally:
        _STARTING.reset(token)
        if starting.ident is not None:  # the last that a monitor hears is how the run ended
            starting.join(None if num_attempts > 1 else _START_S)
        key = "failed" if "failed" in urls and not is_well else "end"
        _ping(key, urls.get(key), num_attempts)


def begin() -> None:
    """Say that the run has its output, unless that is done. A monitor that does not answer delays nothing."""
    starting = _STARTING.get()
    if starting and starting.ident is None:
        starting.start()


def _ping(key: str, url: str | None, num_attempts: int = MAX_TRIES) -> None:
    if url:
        problem = f"heartbeat.{key}: the request to {host_of(url)} failed"
        tried(lambda: send_request(url), problem, num_attempts)
