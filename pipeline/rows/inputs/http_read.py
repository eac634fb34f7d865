"""In: an http or https URL that a table names. Out: its bytes, or why they are refused.

The checked address is the one that is connected to: it is checked when the socket is made, after the name was
resolved, for each connection of each redirect. Proxies of the environment are not used, and cookies and
connections are not kept after a request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from http import HTTPStatus

import aiohttp
import fsspec.asyn
from tenacity import RetryCallState, retry, retry_if_exception, stop_after_attempt, wait_random_exponential
from yarl import URL

import framefleet
from framefleet.pipeline.errors import InputError
from framefleet.pipeline.guards.hosts import public_sockets, retry_after_s
from framefleet.pipeline.guards.redaction import public_url
from framefleet.pipeline.rows.inputs.roots import ADD, MAX_BYTES, WebFile, too_many_bytes

REDIRECTS = (301, 302, 303, 307, 308)
MAX_REDIRECTS = 5
ATTEMPTS = 3
SILENCE_S = 20.0  # without a byte
TOTAL_S = 300.0  # for all attempts together, because a trickle could go on for ever
MAX_PAUSE_S = 30.0  # that a server may ask for between attempts
HEADERS = {
    "User-Agent": f"framefleet/{framefleet.__version__}",  # some hosts refuse the library's default
    "Accept-Encoding": "identity",  # pictures are already compressed, and gzip may be a bomb
}


class _Answered(Exception):
    """The server answered with another status than 200."""

    def __init__(self, status: int, pause_s: float | None) -> None:
        super().__init__(status)
        self.status = status
        self.pause_s = pause_s

    @property
    def may_pass(self) -> bool:
        return self.status == HTTPStatus.TOO_MANY_REQUESTS or self.status >= 500


def read_http(place: WebFile, follow: Callable[[URL], WebFile]) -> bytes:
    """Return the content at `place`. Raises InputError. Callable from any thread.

    follow: returns the place of a redirect, or raises InputError.
    """
    return fsspec.asyn.sync(fsspec.asyn.get_loop(), _read, place, follow)


async def _read(place: WebFile, follow: Callable[[URL], WebFile]) -> bytes:
    try:
        async with asyncio.timeout(TOTAL_S):
            return await _follow(place, follow)
    except (_Answered, aiohttp.ClientError, TimeoutError, OSError, UnicodeError) as error:
        raise _explained(error) from None  # its own text quotes the URL, maybe with a signature


def _may_pass(error: BaseException) -> bool:
    """Return whether the same request may succeed a moment later: a fault of the network or the server."""
    if isinstance(error, _Answered):
        return error.may_pass
    is_final = isinstance(error, aiohttp.ClientSSLError | aiohttp.ClientConnectorCertificateError)
    lost = aiohttp.ClientConnectionError | aiohttp.ClientPayloadError | TimeoutError
    return isinstance(error, lost) and not is_final


def _pause(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    if isinstance(error, _Answered) and error.pause_s is not None:
        return min(error.pause_s, MAX_PAUSE_S)
    return wait_random_exponential(multiplier=0.5, max=MAX_PAUSE_S)(state)


@retry(retry=retry_if_exception(_may_pass), stop=stop_after_attempt(ATTEMPTS), wait=_pause, reraise=True)
async def _follow(place: WebFile, follow: Callable[[URL], WebFile]) -> bytes:
    for _ in range(MAX_REDIRECTS + 1):
        answer = await _ask(place)
        if isinstance(answer, bytes):
            return answer
        try:
            place = follow(answer)
        except InputError as error:
            problem = f"it redirects to {public_url(str(answer))!r}, but {error.problem}"
            raise InputError(problem, error.fix) from None
    raise InputError(f"it redirects more than {MAX_REDIRECTS} times", "use the URL where it ends")


async def _ask(place: WebFile) -> bytes | URL:
    """Request one URL. Returns its content, or the target of a redirect."""
    refused: list[str] = []

    connector = aiohttp.TCPConnector(socket_factory=None if place.is_trusted else public_sockets(refused))
    timeout = aiohttp.ClientTimeout(connect=10.0, sock_read=SILENCE_S)
    try:
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout, auto_decompress=False) as session,
            session.get(place.url, headers=HEADERS, allow_redirects=False) as response,
        ):
            if response.status in REDIRECTS and "Location" in response.headers:
                try:  # a root's password is only for URLs below it
                    return place.url.with_user(None).join(URL(response.headers["Location"]))
                except ValueError:
                    problem = "it redirects to something that is not a URL"
                    raise InputError(problem, "use another URL") from None
            if response.status != HTTPStatus.OK:
                raise _Answered(response.status, retry_after_s(response.headers))
            return await _content(response)
    except OSError:
        if not refused:
            raise
        problem = f"{place.url.host} is at {refused[0]}, which is not a public address"
        raise InputError(problem, ADD.format(f"{place.url.origin()}/")) from None


async def _content(response: aiohttp.ClientResponse) -> bytes:
    encoding = response.headers.get("Content-Encoding") or "identity"
    if encoding.lower() != "identity":
        raise InputError("its host compresses it, although we did not ask for that", "use another URL")
    chunks, size = [], 0
    if (response.content_length or 0) <= MAX_BYTES:
        async for chunk in response.content.iter_chunked(1 << 16):
            chunks.append(chunk)
            size += len(chunk)
            if size > MAX_BYTES:
                break
        else:
            return b"".join(chunks)
    raise too_many_bytes(MAX_BYTES)


def _explained(error: Exception) -> InputError:
    if isinstance(error, _Answered):
        # The standard phrase: the server's own would show text that the table may not read.
        phrase = next((f" {status.phrase}" for status in HTTPStatus if status == error.status), "")
        fix = "try again later" if error.may_pass else "check the URL"
        if error.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            fix = "use a URL that can be read without signing in, e.g. a signed one"
        return InputError(f"it cannot be read: {error.status}{phrase}", fix)
    if isinstance(error, TimeoutError):
        return InputError("it cannot be read: no answer in time", "check the URL, or try again later")
    if isinstance(error, aiohttp.ClientConnectorDNSError | aiohttp.InvalidURL | UnicodeError):
        return InputError("it cannot be read: there is no host with that name", "check the URL")
    if isinstance(error, aiohttp.ClientSSLError | aiohttp.ClientConnectorCertificateError):
        return InputError("it cannot be read: its host has no valid certificate", "check the URL")
    return InputError("it cannot be read: the connection failed", "check the URL, or try again later")
