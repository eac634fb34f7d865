"""Send requests to servers, with the key, which no other host gets. The size of answers is limited.

If a server on the internet says that a file is at another host, this host must not be in a private network.
"""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import threading
from collections.abc import Collection, Coroutine, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urljoin, urlsplit

from framefleet.api.engines import is_public, public_sockets
from framefleet.api.errors import EndpointError, shown
from framefleet.api.outputs import MAX_CLIP_BYTES
from framefleet.api.texts import parse_json, proxy_of, public_text

if TYPE_CHECKING:
    from aiohttp import ClientSession

_Value = TypeVar("_Value")
_MAX_TEXT_BYTES = 64 << 20  # of an image in JSON
_MAX_REDIRECTS = _MAX_REFERENCES = 5
_MAX_SHOWN_BYTES = 1 << 16
_LOOK_S = 30.0  # for an answer that takes no rendering
_REDIRECTS = (301, 302, 303, 307, 308)


class Silent(EndpointError):
    """A server does not answer, or not as the API requires."""


class BadLink(Silent):
    """A clip cannot be fetched from where its server says that it is; a new link may work."""


class OutOfReach(Silent):
    """There was no connection, so the server did not get the request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpAnswer:
    """headers: with names in lower case. url: which answered, after redirects."""

    status: int
    headers: Mapping[str, str]
    content: bytes = field(repr=False)
    url: str = ""

    @property
    def is_good(self) -> bool:
        return 200 <= self.status < 300

    def json(self) -> Any:
        """Return its content as JSON. Raises ValueError."""
        return parse_json(self.content)

    def text(self) -> str:
        """Return its beginning as one line, without the key: it is hidden before the text is cut."""
        return public_text(" ".join(self.content[:_MAX_SHOWN_BYTES].decode("utf-8", "replace").split()))[:300]


class Web:
    """Thread-safe."""

    def __init__(self, urls: Collection[str], key: str | None) -> None:
        self._hosts = {_host(url) for url in urls}
        self._key = key
        self._loop = asyncio.new_event_loop()
        self._sessions: dict[bool, ClientSession] = {}  # by whether they may connect to any address
        threading.Thread(target=self._loop.run_forever, name="servers", daemon=True).start()

    def close(self) -> None:
        async def end() -> None:
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()
            for session in self._sessions.values():
                await session.close()

        self._done(end())
        self._loop.call_soon_threadsafe(self._loop.stop)

    def _done(self, work: Coroutine[Any, Any, _Value]) -> _Value:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def get(self, url: str, *, timeout_s: float = _LOOK_S, is_file: bool = False) -> HttpAnswer:
        """Get an answer. is_file: follow redirects, to other hosts without the key. Raises Silent."""
        for _ in range(_MAX_REDIRECTS if is_file else 1):
            most = MAX_CLIP_BYTES if is_file else _MAX_TEXT_BYTES
            answer = self._done(self._ask("GET", url, timeout_s=timeout_s, most=most))
            if answer.status not in _REDIRECTS or not is_file:
                return answer
            url = linked(url, answer.headers.get("location", ""))
        raise Silent(f"{_host(url)} redirects without end", "check the server")

    def post(
        self,
        url: str,
        fields: Mapping[str, Any],
        *,
        files: Mapping[str, tuple[bytes, str]],
        is_json: bool,
        idempotency_key: str,
        timeout_s: float = _LOOK_S,
    ) -> HttpAnswer:
        """Send a form or JSON, and return the answer. files: content and MIME type. Raises Silent."""
        body: dict[str, Any]
        if is_json:
            data = {
                name: f"data:{kind};base64,{base64.b64encode(content).decode()}"
                for name, (content, kind) in files.items()
            }
            body = {"json": {**fields, **data}}
        else:
            from aiohttp import FormData

            form = FormData(default_to_multipart=True)
            for name, value in fields.items():
                form.add_field(name, value if isinstance(value, str) else json.dumps(value))
            for name, (content, kind) in files.items():
                end = kind.partition("/")[2]
                form.add_field(name, content, filename=f"{name}.{end}", content_type=kind)
            body = {"data": form}
        headers = {"Idempotency-Key": idempotency_key}
        return self._done(
            self._ask("POST", url, timeout_s=timeout_s, most=_MAX_TEXT_BYTES, headers=headers, **body)
        )

    def look(self, url: str) -> Any:
        """Return the JSON at an address, or None."""
        try:
            answer = self.get(url)
            return answer.json() if answer.is_good else None
        except (Silent, ValueError):
            return None

    def form_of(self, url: str, kind: str) -> tuple[bool | None, Collection[str] | None]:
        """Return whether a server accepts JSON, and which fields. None if its OpenAPI page does not say."""
        page = self.look(urljoin(url, "/openapi.json"))
        path = "/v1/videos" if kind == "videos" else "/v1/images/generations"
        try:
            content = page["paths"][path]["post"]["requestBody"]["content"]
            is_json = "multipart/form-data" not in content
            schema = content["application/json" if is_json else "multipart/form-data"]["schema"]
            for _ in range(_MAX_REFERENCES):  # a schema may refer to itself
                if "$ref" not in schema:
                    break
                schema = page["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
            if schema.get("additionalProperties") or not schema["properties"]:
                return is_json, None
            return is_json, frozenset(map(str, schema["properties"]))
        except (LookupError, TypeError, AttributeError):
            return None, None

    def is_own(self, url: str) -> bool:
        """Return whether an address is at one of the servers, which know the key."""
        return _host(url) in self._hosts

    def has_key(self, content: bytes) -> bool:
        return bool(self._key) and str(self._key).encode() in content

    @cached_property
    def _are_near(self) -> bool:
        return any(map(_is_near, self._hosts))

    def _session_for(self, url: str, proxy: str | None) -> ClientSession:
        from aiohttp import ClientSession, DummyCookieJar, TCPConnector

        is_free = bool(proxy) or self.is_own(url) or self._are_near
        if is_free not in self._sessions:  # without compression, as some kilobytes could become gigabytes
            connector = TCPConnector(limit=0, socket_factory=None if is_free else public_sockets([]))
            self._sessions[is_free] = ClientSession(
                auto_decompress=False, cookie_jar=DummyCookieJar(), connector=connector
            )
        return self._sessions[is_free]

    async def _ask(
        self,
        method: str,
        url: str,
        *,
        timeout_s: float,
        most: int,
        headers: Mapping[str, str] | None = None,
        **body: Any,
    ) -> HttpAnswer:
        from aiohttp import ClientConnectorError, ClientError, ClientTimeout

        proxy = proxy_of(url)
        sent = {"Accept-Encoding": "identity", **(headers or {})}
        if self._key and self.is_own(url):
            sent["Authorization"] = f"Bearer {self._key}"
        options: dict[str, Any] = {"timeout": ClientTimeout(total=timeout_s), "allow_redirects": False}
        options |= {"headers": sent, "proxy": proxy, **body}
        try:
            async with self._session_for(url, proxy).request(method, url, **options) as response:
                content = bytearray()
                async for chunk in response.content.iter_any():
                    content += chunk
                    if len(content) > most:
                        raise Silent(f"{_host(url)} sent more than {most:,} bytes", "check the server")
                told = {name.lower(): value for name, value in response.headers.items()}
                return HttpAnswer(status=response.status, headers=told, content=bytes(content), url=url)
        except TimeoutError:
            problem = f"no answer within {timeout_s:g} s"
        except ClientConnectorError as error:
            raise OutOfReach(public_text(f"{_host(url)}: {error}"), "check the server") from None
        except (ClientError, OSError, ValueError) as error:
            problem = public_text(f"{type(error).__name__}: {error}")
        raise Silent(f"{_host(url)}: {problem}", "check the server")


def linked(place: str, link: str) -> str:
    """Return the address that an answer from a place names. Raises BadLink if it is not one."""
    try:
        url = urljoin(place, link)
        parts = urlsplit(url)
        host = (parts.hostname or "").encode("idna")  # raises ValueError, too
        is_address = parts.scheme in ("http", "https") and bool(host) and parts.port != 0
    except ValueError:
        is_address = False
    if not is_address:
        problem = f"{_host(place)} names {shown(public_text(link))}, which is not a web address"
        raise BadLink(problem, "check the server")
    return url


def _host(url: str) -> str:
    """Return scheme, host and port, for which a key is valid."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _is_near(host: str) -> bool:
    """Whether a host is not on the internet."""
    name = urlsplit(host).hostname or ""
    try:
        found = {str(one[4][0]) for one in socket.getaddrinfo(name, None)}
    except OSError:
        return False
    return not all(map(is_public, found))
