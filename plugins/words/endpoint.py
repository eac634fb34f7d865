"""Ask a question, with pictures, at an endpoint that speaks OpenAI's protocol, and check the answer.

All requests to endpoints are made here, with retries, limits of rate, number and cost, and the key, which
nothing else sees. All questions of a run to one model share its limits.

If a question gets no answer while the endpoint answers others, it is the question's fault (`NoAnswer`), else
the endpoint's (`EndpointError`). If there were no other answers meanwhile, a trial decides: a question that
every model can answer. Answers have a size limit, and are never shown or stored if they contain the key.
"""

from __future__ import annotations

import asyncio
import atexit
import math
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import tenacity

from framefleet.api.engines import retry_after_s
from framefleet.api.errors import EndpointError, JobError
from framefleet.api.texts import keep_secrets, parse_json, proxy_of, public_text
from framefleet.pipeline.guards.redaction import holds_secret
from framefleet.pipeline.outputs.columns import NoValue
from framefleet.plugins.words.answer import answer_schema, checked_answer
from framefleet.plugins.words.section import AnswerSection, EndpointSection

if TYPE_CHECKING:
    from aiohttp import ClientSession

_Question = TypeVar("_Question")
_Answer = TypeVar("_Answer")
_Asked = tuple[str | Sequence[Mapping[str, Any]], AnswerSection | None]  # content, form of the answer
_PAUSE = tenacity.wait_random_exponential(multiplier=1, max=10)  # a restart takes some seconds
_MAX_PAUSE_S = 120.0  # of `Retry-After`; for longer pauses, a later run asks again
_MAX_ANSWER_BYTES = 4 << 20
_CLOSE_S = 5.0  # at most
_MAX_SHOWN = 300  # characters of an endpoint's message
# If so many questions get no answer and none has got one, the endpoint is at fault.
_MAX_UNANSWERED = 20
_MAX_TOKENS = 1 << 40  # of one response; no model writes that many
# Statuses where the same request may succeed later: timeouts, too early, too many.
_MAY_PASS = (408, 409, 425, 429)
# Statuses about this request, e.g. for a picture or text that is not allowed.
_OF_REQUEST = (400, 413, 415, 422)
_TRIAL = "Give any answer."
_LATER = "run again when it answers"
_SETTINGS = "check `url`, `model`, `options` and the key in `api_key_env`"
_FORM = "choose a model that supports JSON schemas"


class NoAnswer(NoValue):
    """The endpoint works, but has no valid answer to this question; the text says why."""

    def __init__(self, problem: str, *, is_final: bool = True) -> None:
        super().__init__(problem)
        self.is_final = is_final


class _Failed(Exception):
    """A request got no answer.

    fix: if other requests fail, too. may_pass: whether the same request may succeed later, after `pause_s`.
    is_refusal: the endpoint has read and refused it. is_final: it would refuse it again.
    """

    def __init__(
        self,
        problem: str,
        fix: str,
        *,
        may_pass: bool = False,
        pause_s: float = 0.0,
        is_refusal: bool = False,
        is_final: bool = False,
    ) -> None:
        super().__init__(public_text(problem)[:_MAX_SHOWN])
        self.fix, self.may_pass, self.pause_s, self.is_refusal = fix, may_pass, pause_s, is_refusal
        self.is_final = is_final


class _Endpoint:
    """One model at one address, for the threads of one run. Sends requests from an event loop in a thread."""

    def __init__(self, section: EndpointSection) -> None:
        self._url, self._model = f"{section.url.rstrip('/')}/chat/completions", section.model
        self.title = f"{section.model} at {urlsplit(section.url).netloc}"
        self._key = api_key(section)
        # Without compression, as some kilobytes could become gigabytes.
        self._headers = {"Accept-Encoding": "identity"}
        if self._key:
            self._headers["Authorization"] = f"Bearer {self._key}"
        self._ended, self._lock, self._loop = threading.Event(), threading.Lock(), asyncio.new_event_loop()
        self._session: ClientSession | None = None
        threading.Thread(target=self._loop.run_forever, name="endpoints", daemon=True).start()
        self._turns: dict[int, threading.Semaphore] = {}  # by the number of requests at once
        self._next = 0.0  # earliest time of the next request, by time.monotonic()
        self._num_requests = self._num_answered = self._num_unanswered = 0
        self._cost = 0.0
        self._trial = threading.Lock()
        # Time of the last answer, and start of the last trial without one, by time.monotonic().
        self._answered_at = self._failed_at = -math.inf
        self._fault: _Failed | None = None  # result of that trial
        self._last_answered: list[_Asked] = []  # the last question with an answer

    def close(self) -> None:
        """Cancel the requests in flight."""

        async def end() -> None:
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
            if self._session is not None:
                await self._session.close()

        with self._lock:  # requests sent before this come before `end` in the loop
            self._ended.set()
        ending = asyncio.run_coroutine_threadsafe(end(), self._loop)
        # Always stop the loop after that, or threads would wait for an answer for ever.
        ending.add_done_callback(lambda _: self._loop.call_soon_threadsafe(self._loop.stop))
        with suppress(TimeoutError):
            ending.result(_CLOSE_S)

    async def _post(self, body: Mapping[str, Any], timeout_s: float) -> tuple[int, Mapping[str, str], str]:
        """Return status, headers and text. Raises _Failed if there is no answer in time."""
        from aiohttp import ClientError, ClientSession, ClientTimeout, DummyCookieJar

        self._session = self._session or ClientSession(auto_decompress=False, cookie_jar=DummyCookieJar())
        # `total` also limits slow answers. Redirects are not followed, as they would get the key.
        options: dict[str, Any] = {"timeout": ClientTimeout(total=timeout_s), "allow_redirects": False}
        options |= {"headers": self._headers, "proxy": proxy_of(self._url)}
        try:
            async with self._session.post(self._url, json=body, **options) as response:
                content = bytearray()
                async for chunk in response.content.iter_any():
                    content += chunk
                    if len(content) > _MAX_ANSWER_BYTES:
                        problem = f"its answer has more than {_MAX_ANSWER_BYTES:,} bytes"
                        raise _Failed(problem, _LATER, may_pass=True)
                return response.status, response.headers, content.decode("utf-8", "replace")
        except TimeoutError:
            problem = f"no answer within {timeout_s:g} s"
        except ValueError as error:  # an invalid address or proxy
            raise _Failed(f"{type(error).__name__}: {error}", _SETTINGS) from None
        except (ClientError, OSError) as error:
            problem = f"{type(error).__name__}: {error}"
        raise _Failed(problem, _LATER, may_pass=True)

    def ask(
        self,
        section: EndpointSection,
        content: str | Sequence[Mapping[str, Any]],
        answer: AnswerSection | None,
    ) -> float | str:
        """Return the answer, as `ask` does."""
        began = 0.0

        def attempt() -> float | str:
            nonlocal began
            began = time.monotonic()
            return self._attempt(section, content, answer)

        attempts = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(section.attempts) | tenacity.stop_when_event_set(self._ended),
            wait=lambda state: max(
                _PAUSE(state), getattr(state.outcome and state.outcome.exception(), "pause_s", 0.0)
            ),
            sleep=tenacity.sleep_using_event(self._ended),
            retry=tenacity.retry_if_exception(lambda error: isinstance(error, _Failed) and error.may_pass),
            reraise=True,
        )
        with self._lock:
            turns = self._turns.setdefault(section.parallel, threading.Semaphore(section.parallel))
        try:
            with turns:  # threads for all questions may be more
                value = attempts(attempt)
        except _Failed as error:
            trial = _TRIAL if isinstance(content, str) else [{"type": "text", "text": _TRIAL}]
            with self._trial:  # others wait here and use the same outcome
                # The endpoint works if it refuses. Any answer shows that it does not refuse everything.
                if self._answered_at <= (-math.inf if error.is_refusal else began):
                    # Some models do not answer questions without a picture.
                    self._try_out(section, [(trial, answer), *self._last_answered], since=began)
            with self._lock:
                self._num_unanswered += 1
                most = max(_MAX_UNANSWERED, 2 * section.parallel)
                is_hopeless = not self._num_answered and self._num_unanswered >= most
            if is_hopeless:
                problem = f"it has answered none of {self._num_unanswered} questions, e.g. {error}"
                raise self._error(problem, error.fix) from None
            raise NoAnswer(str(error), is_final=error.is_final) from None
        with self._lock:
            self._num_answered += 1
            self._last_answered = [(content, answer)]
        return value

    def _try_out(self, section: EndpointSection, trials: Sequence[_Asked], *, since: float) -> None:
        """Raise EndpointError if no trial gets an answer, or none has got one since."""
        fault = self._fault if self._failed_at > since else None
        began = time.monotonic()
        for content, answer in () if fault else trials:
            try:
                self._attempt(section, content, answer)
                return
            except _Failed as error:
                self._failed_at, self._fault = began, error
        assert self._fault is not None, "a trial is made, or one has failed"
        raise self._error(str(self._fault), self._fault.fix)

    def _attempt(
        self,
        section: EndpointSection,
        content: str | Sequence[Mapping[str, Any]],
        answer: AnswerSection | None,
    ) -> float | str:
        """Return the answer to one request. Raises _Failed."""
        schema = {"name": "answer", "strict": True, "schema": answer_schema(answer)}
        body: dict[str, Any] = {
            **section.options,
            "model": self._model,
            "messages": [{"role": "user", "content": content}],
            "response_format": {"type": "json_schema", "json_schema": schema},
        }
        self._take_turn(section)
        try:
            with self._lock:
                if self._ended.is_set():
                    raise _ended()
                posted = asyncio.run_coroutine_threadsafe(self._post(body, section.timeout_s), self._loop)
            status, headers, text = posted.result()
        except CancelledError:
            raise _ended() from None
        if status != 200:
            raise self._refusal(status, headers, text)
        value = self._value(section, text, answer)
        self._answered_at = time.monotonic()
        return value

    def _refusal(self, status: int, headers: Mapping[str, str], text: str) -> _Failed:
        """Return the meaning of a status other than 200."""
        problem = f"HTTP {status}: {text}"
        if status < 500 and status not in _MAY_PASS:
            return _Failed(problem, _SETTINGS, is_refusal=status in _OF_REQUEST, is_final=True)
        pause_s = retry_after_s(headers) or 0.0
        if pause_s > _MAX_PAUSE_S:
            return _Failed(f"it asks for a pause of {pause_s:,.0f} s: {problem}", "run again after that")
        with self._lock:  # other threads wait, too
            self._next = max(self._next, time.monotonic() + pause_s)
        return _Failed(problem, _LATER, may_pass=True, pause_s=pause_s)

    def _value(self, section: EndpointSection, text: str, answer: AnswerSection | None) -> float | str:
        """Return the answer in a response, which may be anything. A retry may give a better answer."""
        try:
            message = parse_json(text)
        except ValueError as error:
            raise _Failed(
                f"the response is not JSON ({error}): {text}", _FORM, may_pass=True, is_final=True
            ) from None
        self._pay(section, message)
        try:
            content = message["choices"][0]["message"]["content"]
            value = checked_answer(answer, parse_json(content)["answer"])
        except (LookupError, TypeError) as error:
            problem = f"the response has another form ({error}): {text}"
            raise _Failed(problem, _FORM, may_pass=True, is_final=True) from None
        except ValueError as error:
            raise _Failed(f"{error}: the answer {content!r}", _FORM, may_pass=True, is_final=True) from None
        if self._key and isinstance(value, str) and holds_secret(value, self._key):
            raise _Failed(
                "its answer contains the key, so it is discarded", _FORM, may_pass=True, is_final=True
            )
        return value

    def _take_turn(self, section: EndpointSection) -> None:
        """Wait until a request may start. Raises EndpointError if a limit of the run is reached."""
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
        """Add the cost of a response. Raises _Failed if there is a limit, but no number of tokens."""
        if section.price is None:
            return
        usage = message.get("usage") if isinstance(message, dict) else None
        tokens = [usage.get(key) if isinstance(usage, dict) else None for key in _TOKENS]
        counts = [one for one in tokens if type(one) is int and 0 <= one <= _MAX_TOKENS]
        if len(counts) < len(tokens):
            if section.max_cost is None:
                return
            raise _Failed("it does not say how many tokens it used", "limit it by `max_requests` instead")
        with self._lock:
            self._cost += (counts[0] * section.price.input + counts[1] * section.price.output) / 1e6

    def _error(self, problem: str, fix: str) -> EndpointError:
        return EndpointError(f"{self.title}: {problem}", fix)


_TOKENS = ("prompt_tokens", "completion_tokens")
_endpoints: dict[tuple[str, str, str | None], _Endpoint] = {}
_opening = threading.Lock()
_over = threading.Event()  # no request starts until the next run does
_num_runs = 0  # in this process, maybe in several threads


def ask(
    section: EndpointSection, content: str | Sequence[Mapping[str, Any]], answer: AnswerSection | None = None
) -> float | str:
    """Return the answer to a question. Thread-safe.

    content: of a message, text or parts. answer: its form; None: text. Raises NoAnswer if the endpoint
    answers other questions but not this one, EndpointError if it answers none now, a limit is reached, or the
    run has ended.
    """
    with _opening:
        if _over.is_set():
            raise _ended()
        key = (section.url, section.model, section.api_key_env)
        if key not in _endpoints:
            _endpoints[key] = _Endpoint(section)
        endpoint = _endpoints[key]
    return endpoint.ask(section, content, answer)


@atexit.register
def end_requests() -> None:
    """Cancel the requests in flight, and allow none until the next run."""
    with _opening:
        _over.set()
        for endpoint in _endpoints.values():
            endpoint.close()
        _endpoints.clear()


@contextmanager
def counting_requests() -> Iterator[None]:
    """Enclose a run. Unless another is active, limits count from now, and keys are read again."""
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
    """Return the key for an endpoint, from the environment. Raises JobError if it is not set."""
    if section.api_key_env is None:
        return None
    key = os.environ.get(section.api_key_env, "").strip()
    if not key:
        raise JobError(
            f"api_key_env: the environment variable {section.api_key_env} is not set",
            f"set it, or leave `api_key_env` out if {urlsplit(section.url).netloc} needs no key",
        )
    keep_secrets({"key": key})
    if not key.isprintable():  # headers must not contain such characters
        problem = f"api_key_env: the environment variable {section.api_key_env} has control characters"
        raise JobError(problem, "set it to the key only, in one line")
    return key


def _ended() -> EndpointError:
    return EndpointError("the run ended before the answer came", "run it again")
