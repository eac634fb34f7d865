"""Report the end of a run to the web address and the command in `on_end`."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import tenacity

from framefleet.api.errors import FramefleetError, JobError, OutputInUse, count_text
from framefleet.api.jobs import Job, Summary, store_of_job
from framefleet.api.texts import keep_secrets, public_text
from framefleet.pipeline.errors import exit_code_of
from framefleet.pipeline.guards.mistakes import Mistakes, no_program
from framefleet.plugins.notify.section import OnEndSection

# A server is usually back ten seconds after a restart. An interrupted run has no time for a second attempt.
MAX_TRIES = 4
_PAUSE = tenacity.wait_random_exponential(multiplier=1, max=10)
_WEBHOOK_S, _COMMAND_S = 10.0, 60.0

_SECTION = "on_end"
_VARIABLE = re.compile(r"\$\{(\w+)\}")

log = logging.getLogger(__name__)


def checked_end(job: Job) -> OnEndSection:
    """Return the section with the final address and program. Raises JobError."""
    wanted: OnEndSection = getattr(job, _SECTION)
    mistakes = Mistakes()
    with mistakes.noted():
        if wanted.webhook:
            wanted = wanted.model_copy(update={"webhook": url_at(f"{_SECTION}.webhook", wanted.webhook)})
    with mistakes.noted():
        if wanted.command:
            program, *arguments = wanted.command
            in_folder = os.path.join(job.folder or "", program)
            if "/" in program and shutil.which(in_folder):
                wanted = wanted.model_copy(update={"command": [in_folder, *arguments]})
            elif not shutil.which(program):
                raise no_program(f"{_SECTION}.command", program, in_folder)
    mistakes.report()
    return wanted


@contextmanager
def report_end(job: Job) -> Iterator[Callable[[Summary], None]]:
    """Yield a function for the summary of a run, and report how it ended. Failed reports are only logged.

    Raises JobError before the run if the address or the command is invalid.
    """
    wanted = checked_end(job)
    if not (wanted.webhook or wanted.command):
        yield lambda _: None
        return
    summaries: list[Summary] = []
    try:
        yield summaries.append
    except OutputInUse:  # the run that uses the output will report its end
        raise
    except BaseException as error:
        _send(job, wanted, None, error)
        raise
    if wanted.when == "always" or summaries[0].exit_code:
        _send(job, wanted, summaries[0], None)


def _send(job: Job, wanted: OnEndSection, summary: Summary | None, error: BaseException | None) -> None:
    content = json.dumps(_public(_ending(job, summary, error))).encode()
    num_attempts = MAX_TRIES if error is None or isinstance(error, Exception) else 1
    if url := wanted.webhook:
        what = f"on_end.webhook at {host_of(url)} could not be notified that the job ended"
        tried(lambda: send_request(url, content), what, num_attempts)
    if command := wanted.command:
        what = f"on_end.command {command[0]} could not be notified that the job ended"
        tried(lambda: _run(command, content), what, num_attempts)


def _public(value: Any) -> Any:
    """Return a nested value with `public_text` applied to every text."""
    if isinstance(value, Mapping):
        return {_public(key): _public(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_public(inner) for inner in value]
    return public_text(value) if isinstance(value, str) else value


def _ending(job: Job, summary: Summary | None, error: BaseException | None) -> dict[str, object]:
    content, output = json.loads(summary.to_json()) if summary else None, store_of_job(job).url_of("")
    message: dict[str, object] = {"output": output, "summary": content, "error": None}
    if summary:
        state = "incomplete" if summary.exit_code else "done"
        text = f"{output}: {state}, {count_text(summary.done, 'row')} done, {summary.failed:,} failed"
        return message | {"state": state, "exit_code": summary.exit_code, "text": text}
    if isinstance(error, Exception):
        problem = {"problem": f"{type(error).__name__}: {error}", "fix": ""}
        if isinstance(error, FramefleetError):
            problem = {"problem": error.problem, "fix": error.fix}
        of_error = {"state": "error", "exit_code": exit_code_of(error), "error": problem}
        return message | of_error | {"text": f"{output}: error, {problem['problem']}"}
    return message | {"state": "interrupted", "exit_code": None, "text": f"{output}: interrupted"}


def url_at(place: str, text: str) -> str:
    """Return a URL with its environment variables replaced, and hide it in logs. Raises JobError."""
    names = _VARIABLE.findall(text)
    if missing := [name for name in names if not os.environ.get(name)]:
        problem = f"{place}: the environment variable {missing[0]} is not set"
        raise JobError(problem, "set it on the machine that renders the job")
    url = _VARIABLE.sub(lambda variable: os.environ[variable[1]], text)
    # Anybody who knows the address of a chat can write there.
    keep_secrets({"webhook": [url, *map(os.environ.get, names)]})
    if not url.startswith(("https://", "http://")):
        raise JobError(f"{place}: {names[0]} does not start with https:// or http://", "correct the variable")
    return url


def host_of(url: str) -> str:
    """Return the part of a URL that messages may show. The URL may be invalid."""
    try:
        return urlsplit(url).hostname or "its address"
    except ValueError:  # e.g. for http://[x
        return "its address"


def tried(act: Callable[[], None], problem: str, num_attempts: int = MAX_TRIES) -> None:
    """Call a function until it succeeds; log the problem if all attempts fail."""
    attempts = tenacity.Retrying(
        stop=tenacity.stop_after_attempt(num_attempts),
        wait=_PAUSE,
        retry=tenacity.retry_if_exception_type(Exception) & tenacity.retry_if_not_exception_type(_Final),
    )
    try:
        attempts(act)
    except (tenacity.RetryError, _Final) as failed:
        last = failed.last_attempt.exception() if isinstance(failed, tenacity.RetryError) else failed
        log.warning("%s", public_text(f"{problem}: {last}"))


class _Final(Exception):
    """No further attempt, as it would fail again or may have succeeded; the text says why."""


def send_request(url: str, content: bytes | None = None) -> None:
    """Post the content, or get the URL if there is none, and wait for the start of the answer."""
    with ThreadPoolExecutor(1) as thread:  # the caller's thread may have an event loop, e.g. in a notebook
        status = thread.submit(asyncio.run, _answer(url, content)).result()
    if 300 <= status < 400:
        raise _Final("it redirects, which is not followed; use the address that it redirects to")
    if status >= 400:
        raise ConnectionError(f"it answered HTTP {status}")


async def _answer(url: str, content: bytes | None) -> int:
    """Return the status of the answer. Raises TimeoutError, also for a slow answer."""
    from aiohttp import ClientSession, ClientTimeout

    from framefleet.api.texts import proxy_of

    try:
        async with (
            ClientSession(timeout=ClientTimeout(total=_WEBHOOK_S)) as session,
            session.request(
                "GET" if content is None else "POST",
                url,
                data=content,
                headers={} if content is None else {"Content-Type": "application/json"},
                allow_redirects=False,
                proxy=proxy_of(url),
            ) as response,
        ):
            return response.status
    except TimeoutError:
        raise TimeoutError(f"no answer within {_WEBHOOK_S:.0f} s") from None


def _run(command: list[str], content: bytes) -> None:
    """Run a command; if it takes too long, end it and its children. Arguments may be secret."""
    sys.stderr.flush()
    try:
        # Its output goes to stderr, as standard output is for results.
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=2, start_new_session=True)
    except OSError as error:
        raise _Final(f"it cannot be run: {error.strerror}") from None
    try:
        process.communicate(content, timeout=_COMMAND_S)
    except subprocess.TimeoutExpired:
        raise _Final(f"it was ended after {_COMMAND_S:.0f} s") from None
    finally:
        if process.returncode != 0:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if process.returncode:
        raise ChildProcessError(f"it returned non-zero exit status {process.returncode}")
