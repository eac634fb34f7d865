"""In: a question, with pictures. Out: the answer of an endpoint that speaks OpenAI's protocol, checked.

The one place that asks endpoints: with retries, limits of rate, number and cost, and the key, which nothing
else sees. All questions of a run to one model share its limits.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from email.utils import parsedate_to_datetime
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import tenacity

from framefleet.pipeline.errors import EndpointError, JobError
from framefleet.pipeline.guards.json_text import parse_json
from framefleet.pipeline.guards.redaction import keep_secrets, public_text
from framefleet.plugins.words.section import AnswerSection, EndpointSection, answer_schema, checked_answer

if TYPE_CHECKING:
    from aiohttp import ClientSession

_Question = TypeVar("_Question")
_Answer = TypeVar("_Answer")
_PAUSE = tenacity.wait_random_exponential(multiplier=1, max=10)  # who restarts is back within some seconds
_MAX_PAUSE_S = 120.0  # of `Retry-After`: who wants more is asked again by a later run
_MAX_ANSWER_BYTES = 4 << 20
_CLOSE_S = 5.0  # at most; closing a connection waits for nobody
_MAX_SHOWN = 300  # characters of what an endpoint says
# Clips that an endpoint may fail to answer before it has answered any: then it is not about the clips.
_MAX_UNANSWERED = 20
# Which the same request may pass later: timeouts, too early, too many.
_MAY_PASS = (408, 409, 425, 429)
# Which are about this request, as a picture or a text that is not allowed.
_OF_REQUEST = (400, 413, 415, 422)


class NoAnswer(Exception):
    """The endpoint is there, and does not answer this question as it should; the text says how."""


class _BadAnswer(NoAnswer):
    """Of another form than was asked for."""


class _Later(Exception):
    """It may answer later. pause_s: after which it wants to be asked."""

    def __init__(self, problem: str, pause_s: float = 0.0) -> None:
        super().__init__(problem)
        self.pause_s = pause_s


class _Endpoint:
    """One model at one address, for the threads of one run; posts by an event loop in a thread of its own."""

    def __init__(self, section: EndpointSection) -> None:
        self._url, self._model = f"{section.url.rstrip('/')}/chat/completions", section.model
        self.title = f"{section.model} at {urlsplit(section.url).netloc}"
        key = api_key(section)
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._ended, self._lock, self._loop = threading.Event(), threading.Lock(), asyncio.new_event_loop()
        self._session: ClientSession | None = None
        threading.Thread(target=self._loop.run_forever, name="endpoints", daemon=True).start()
        self._next = 0.0  # when a request may begin, by time.monotonic()
        self._num_requests = self._num_answered = self._num_unanswered = 0
        self._cost = 0.0

    def close(self) -> None:
        """End the requests that are under way."""

        async def end() -> None:
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
            if self._session is not None:
                await self._session.close()

        with self._lock:  # what was posted before it comes before `end` in the loop
            self._ended.set()
        ending = asyncio.run_coroutine_threadsafe(end(), self._loop)
        # The loop stops after that, however late: else who waits for an answer would wait without end.
        ending.add_done_callback(lambda _: self._loop.call_soon_threadsafe(self._loop.stop))
        with suppress(TimeoutError):
            ending.result(_CLOSE_S)

    async def _post(self, body: Mapping[str, Any], timeout_s: float) -> tuple[int, Mapping[str, str], str]:
        """Return status, headers and text. Raises _Later where nobody answers in time."""
        from aiohttp import ClientError, ClientSession, ClientTimeout

        self._session = self._session or ClientSession(trust_env=True)
        # `total`: however slowly an answer comes. A redirect would get the key.
        options: dict[str, Any] = {"timeout": ClientTimeout(total=timeout_s), "allow_redirects": False}
        try:
            async with self._session.post(self._url, json=body, headers=self._headers, **options) as response:
                content = bytearray()
                async for chunk in response.content.iter_any():
                    content += chunk
                    if len(content) > _MAX_ANSWER_BYTES:
                        raise _Later(f"its answer has more than {_MAX_ANSWER_BYTES:,} bytes")
                return response.status, response.headers, content.decode("utf-8", "replace")
        except TimeoutError:
            raise _Later(f"it has not answered in {timeout_s:g} s") from None
        except (ClientError, OSError) as error:
            raise _Later(f"{type(error).__name__}: {error}") from None

    def ask(
        self,
        section: EndpointSection,
        content: str | Sequence[Mapping[str, Any]],
        answer: AnswerSection | None,
    ) -> float | str:
        """Do what `ask` promises."""
        schema = {"name": "answer", "strict": True, "schema": answer_schema(answer)}
        body = {
            **section.options,
            "model": self._model,
            "messages": [{"role": "user", "content": content}],
            "response_format": {"type": "json_schema", "json_schema": schema},
        }
        attempts = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(section.attempts) | tenacity.stop_when_event_set(self._ended),
            wait=lambda state: max(
                _PAUSE(state), getattr(state.outcome and state.outcome.exception(), "pause_s", 0.0)
            ),
            sleep=tenacity.sleep_using_event(self._ended),
            # An answer of another form may be better the next time; what is refused stays refused.
            retry=tenacity.retry_if_exception_type((_Later, _BadAnswer)),
            reraise=True,
        )
        try:
            value = attempts(self._attempt, section, body, answer)
        except _Later as error:
            raise self._error(str(error), "run again when it answers") from None
        except NoAnswer as error:
            with self._lock:
                self._num_unanswered += 1
                is_hopeless = not self._num_answered and self._num_unanswered >= _MAX_UNANSWERED
            if is_hopeless:
                problem = f"it has answered none of {self._num_unanswered} questions, e.g. {error}"
                raise self._error(problem, "choose a model that answers by JSON schema") from None
            raise
        with self._lock:
            self._num_answered += 1
        return value

    def _attempt(
        self, section: EndpointSection, body: Mapping[str, Any], answer: AnswerSection | None
    ) -> float | str:
        self._take_turn(section)
        try:
            with self._lock:
                if self._ended.is_set():
                    raise _ended()
                posted = asyncio.run_coroutine_threadsafe(self._post(body, section.timeout_s), self._loop)
            status, headers, text = posted.result()
        except CancelledError:
            raise _ended() from None
        shown = public_text(f"HTTP {status}: {text}")[:_MAX_SHOWN]
        if status >= 500 or status in _MAY_PASS:
            pause_s = _retry_after(headers)
            if pause_s > _MAX_PAUSE_S:
                problem = f"it wants to be left alone for {pause_s:,.0f} s: {shown}"
                raise self._error(problem, "run again then")
            with self._lock:  # for the other threads, too
                self._next = max(self._next, time.monotonic() + pause_s)
            raise _Later(shown, pause_s)
        if status in _OF_REQUEST:
            raise NoAnswer(shown)
        if status != 200:
            raise self._error(shown, "check `url`, `model` and the key that `api_key_env` names")
        try:
            message = parse_json(text)
        except ValueError as error:
            raise _BadAnswer(f"the response is not JSON ({error}): {shown}") from None
        self._pay(section, message)
        try:
            content = message["choices"][0]["message"]["content"]
            return checked_answer(answer, parse_json(content)["answer"])
        except (LookupError, TypeError) as error:
            raise _BadAnswer(f"the response has another form ({error}): {shown}") from None
        except ValueError as error:
            raise _BadAnswer(public_text(f"the answer is {content!r}: {error}")[:_MAX_SHOWN]) from None

    def _take_turn(self, section: EndpointSection) -> None:
        """Wait until a request may begin. Raises EndpointError where a limit of the run is reached."""
        with self._lock:
            spent = ""
            if section.max_requests is not None and self._num_requests >= section.max_requests:
                spent = f"max_requests: {self._num_requests:,} made in this run"
            elif section.max_cost is not None and self._cost >= section.max_cost:
                spent = f"max_cost: {self._cost:.2f} spent in this run"
            if spent:
                raise self._error(spent, "run again, or raise the limit")
            self._num_requests += 1
            begins = max(self._next, time.monotonic())
            if section.requests_per_minute:
                self._next = begins + 60 / section.requests_per_minute
        if self._ended.wait(max(0.0, begins - time.monotonic())):
            raise _ended()

    def _pay(self, section: EndpointSection, message: Any) -> None:
        """Count what a response costs. Raises EndpointError where there is a limit and it does not say."""
        if section.price is None:
            return
        usage = message.get("usage") if isinstance(message, dict) else None
        tokens = [usage.get(key) if isinstance(usage, dict) else None for key in _TOKENS]
        num_input, num_output = (one if isinstance(one, int) and one >= 0 else None for one in tokens)
        if num_input is None or num_output is None:
            if section.max_cost is None:
                return
            raise self._error("it does not say how many tokens it used", "limit it by `max_requests` instead")
        with self._lock:
            self._cost += (num_input * section.price.input + num_output * section.price.output) / 1e6

    def _error(self, problem: str, fix: str) -> EndpointError:
        return EndpointError(f"{self.title}: {problem}", fix)


_TOKENS = ("prompt_tokens", "completion_tokens")
_endpoints: dict[tuple[str, str, str | None], _Endpoint] = {}
_opening = threading.Lock()
_over = threading.Event()  # no request begins until the next run does
_num_runs = 0  # under way in this process, maybe in several threads


def ask(
    section: EndpointSection, content: str | Sequence[Mapping[str, Any]], answer: AnswerSection | None = None
) -> float | str:
    """Return the answer to a question. For several threads.

    content: of a message, text or parts. answer: its form; None: a text. Raises NoAnswer where the endpoint
    does not answer this question, EndpointError where it answers none now, a limit is reached, or the run
    has ended.
    """
    with _opening:
        if _over.is_set():
            raise _ended()
        key = (section.url, section.model, section.api_key_env)
        if key not in _endpoints:
            _endpoints[key] = _Endpoint(section)
        endpoint = _endpoints[key]
    return endpoint.ask(section, content, answer)


def each_answer(
    questions: Iterator[_Question],
    ask: Callable[[_Question], _Answer],
    take: Callable[[_Question, _Answer], None],
    *,
    parallel: int,
    end: Callable[[], None],
) -> None:
    """Ask in threads, some ahead, and have each answer taken, in the order of the questions.

    What was answered is taken, whatever ends it: an error of `ask` or `take`, or Ctrl-C. end: ends the
    requests that are under way.
    """
    waiting: deque[tuple[_Question, Future[_Answer]]] = deque()
    with ThreadPoolExecutor(parallel, thread_name_prefix="answers") as threads:
        try:
            with _ended_at_ctrl_c(end):
                while True:
                    for question in islice(questions, 2 * parallel - len(waiting)):
                        waiting.append((question, threads.submit(ask, question)))
                    if not waiting:
                        break
                    answer = waiting[0][1].result()
                    take(waiting.popleft()[0], answer)
        finally:
            with _ended_at_ctrl_c(end):
                begun = [one for one in waiting if not one[1].cancel()]
                for question, future in begun:
                    if not future.exception():
                        take(question, future.result())


@contextmanager
def _ended_at_ctrl_c(end: Callable[[], None]) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        end()
        raise


@atexit.register
def end_requests() -> None:
    """End the requests that are under way; none begins until a run does."""
    with _opening:
        _over.set()
        for endpoint in _endpoints.values():
            endpoint.close()
        _endpoints.clear()


@contextmanager
def counting_requests() -> Iterator[None]:
    """Enclose a run: limits count from its beginning, and keys are read anew, unless others are under way."""
    global _num_runs
    with _opening:
        is_alone = not _num_runs
        _num_runs += 1
    if is_alone:
        end_requests()
    _over.clear()
    try:
        yield
    finally:
        with _opening:
            _num_runs -= 1
            is_last = not _num_runs
        if is_last:
            end_requests()


def api_key(section: EndpointSection) -> str | None:
    """Return the key for an endpoint, from the environment. Raises JobError where there is none."""
    if section.api_key_env is None:
        return None
    key = os.environ.get(section.api_key_env, "").strip()
    if not key:
        raise JobError(
            f"api_key_env: the environment variable {section.api_key_env} is not set",
            f"set it, or leave `api_key_env` out if {urlsplit(section.url).netloc} wants no key",
        )
    keep_secrets({"key": key})
    return key


def _ended() -> EndpointError:
    return EndpointError("the run ended before the answer came", "run it again")


def _retry_after(headers: Mapping[str, str]) -> float:
    """Return the seconds after which an endpoint wants to be asked again; 0 if it does not say."""
    text = headers.get("Retry-After", "")
    try:
        return max(0.0, float(text))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, OverflowError):
        return 0.0
