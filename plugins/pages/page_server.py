"""Serve pages about an output on this machine, to anybody with the URL.

    http://127.0.0.1:PORT/TOKEN/...    a page, and the files of the output that it shows

Other users of the machine and web pages do not know the token. Requests of web pages are also recognized by
`Host`, a name of theirs that resolves to this machine, and `Origin`. The output is not trusted: no page in it
is served, only files of a few types, and no links are followed.
"""

from __future__ import annotations

import logging
import re
import secrets
import sys
import threading
from collections.abc import Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import PurePosixPath
from typing import Any, Self

from framefleet.api.errors import FramefleetError, JobError, NoFile
from framefleet.api.outputs import Store

_RANGE = re.compile(r"bytes=(\d{1,15})-(\d{0,15})", re.ASCII)
_NAME = r"/[A-Za-z0-9_.-]+(?:/[A-Za-z0-9_.-]+)*"
_MAX_BODY = 1 << 16  # bytes
_AT_ONCE = 1 << 20  # bytes of a file in memory, for each request
# For a file that is opened by itself, a browser may only show it.
_FILE_POLICY = "default-src 'none'; img-src 'self'; media-src 'self'; style-src 'unsafe-inline'"
_NO_FRAMES = "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
# Types of clips and previews in every format, but nothing that a browser could run.
MEDIA_TYPES: Mapping[str, str] = {
    **{".mp4": "video/mp4", ".webm": "video/webm", ".mkv": "video/x-matroska"},
    **{".png": "image/png", ".webp": "image/webp", ".gif": "image/gif"},
    **{".flac": "audio/flac", ".wav": "audio/wav", ".zip": "application/zip"},
}

log = logging.getLogger(__name__)


class OutputHandler(BaseHTTPRequestHandler):
    """Answers one request. Nothing of it is trusted.

    types: of the files that are served, by ending, for each folder of the output. policy: what pages may do.
    """

    types: Mapping[str, Mapping[str, str]]
    policy: str
    store: Store
    token: str
    hosts: tuple[str, ...]
    timeout = 60
    server_version, sys_version = "framefleet", ""
    protocol_version = "HTTP/1.1"

    def made(self, path: str) -> tuple[bytes, str] | None:
        """Return content and type for a path that is not a file of the output, or None."""
        return None

    def take(self, path: str, body: bytes) -> HTTPStatus:
        """Handle a request of a page, and return the status."""
        return HTTPStatus.NOT_FOUND

    def do_GET(self) -> None:
        if (path := self._path()) is None:
            return
        try:
            if made := self.made(path):
                self._answer(*made)
            elif (
                re.fullmatch(f"(?:{'|'.join(self.types)}){_NAME}", path, re.ASCII)
                and ".." not in path
                and (kind := self.types[path.partition("/")[0]].get(PurePosixPath(path).suffix))
            ):
                self._send(path, kind)
            else:
                self._refuse(HTTPStatus.NOT_FOUND)
        except (FileNotFoundError, NoFile):
            self._refuse(HTTPStatus.NOT_FOUND)
        except FramefleetError as error:
            log.warning("%s", error)
            self._refuse(HTTPStatus.BAD_GATEWAY)

    def do_POST(self) -> None:
        if (path := self._path()) is None:
            return
        length = self.headers.get("Content-Length", "")
        if self.headers.get("Origin") != f"http://{self.headers['Host']}":
            self._refuse(HTTPStatus.FORBIDDEN)
        elif self.headers.get("Content-Type") != "application/json":
            self._refuse(HTTPStatus.UNSUPPORTED_MEDIA_TYPE)
        elif not re.fullmatch(r"\d{1,9}", length, re.ASCII) or int(length) > _MAX_BODY:
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        elif (status := self.take(path, self.rfile.read(int(length)))) == HTTPStatus.OK:
            self._answer(b"{}", "application/json")
        else:
            self._refuse(status)

    def _path(self) -> str | None:
        """Return the requested path below the token; None if the request was refused."""
        begin = f"/{self.token}/"
        if self.headers.get("Host") not in self.hosts:
            self._refuse(HTTPStatus.MISDIRECTED_REQUEST)
        elif not secrets.compare_digest(self.path[: len(begin)].encode(), begin.encode()):
            self._refuse(HTTPStatus.NOT_FOUND)
        else:
            return self.path[len(begin) :].partition("?")[0]
        return None

    def _send(self, path: str, kind: str) -> None:
        """Send a file, or the requested range of it, in pieces."""
        size = self.store.stat(path).size
        span = _RANGE.fullmatch(self.headers.get("Range", ""))
        first = int(span[1]) if span else 0
        last = min(int(span[2]) if span and span[2] else size - 1, size - 1)
        if span and first > last:
            self._refuse(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
            return
        part = self.store.read_own(path, first, min(_AT_ONCE, last + 1 - first))
        self._begin(last + 1 - first, kind, ranged=f"bytes {first}-{last}/{size}" if span else None)
        try:
            while part:
                self.wfile.write(part)
                first += len(part)
                part = self.store.read_own(path, first, min(_AT_ONCE, last + 1 - first))
        except (FileNotFoundError, FramefleetError) as error:
            log.warning("%s", error)
        if first <= last:
            self.close_connection = True  # of a file that was cut, nothing else says so

    def _answer(self, content: bytes, kind: str) -> None:
        self._begin(len(content), kind)
        self.wfile.write(content)

    def _begin(self, size: int, kind: str, *, ranged: str | None = None) -> None:
        """Send what comes before the content."""
        self.send_response(HTTPStatus.PARTIAL_CONTENT if ranged else HTTPStatus.OK)
        headers = {"Content-Type": kind, "Content-Length": size, "Accept-Ranges": "bytes"}
        headers |= {"Content-Range": ranged} if ranged else {}
        # Other origins neither read nor show what is here; a browser does not guess what a file is.
        headers |= {"Cross-Origin-Resource-Policy": "same-origin", "X-Content-Type-Options": "nosniff"}
        headers |= {"X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer", "Cache-Control": "no-cache"}
        policy = self.policy if kind.startswith("text/html") else _FILE_POLICY
        headers |= {"Content-Security-Policy": f"{policy}; {_NO_FRAMES}"}
        for name, value in headers.items():
            self.send_header(name, str(value))
        self.end_headers()

    def _refuse(self, status: HTTPStatus) -> None:
        self.close_connection = True  # its body was not read
        self.send_error(status)

    def log_message(self, *_: Any) -> None:
        """Log nothing, since every line has the token."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log errors, but ignore clients that have disconnected, e.g. players that seek."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            log.warning("a request of the page failed", exc_info=True)


class PageServer:
    """Serves a page of an output until it is closed. url: of the page, which is at `page`.

    handler: class that answers, with these attributes. port: 0 uses a free one. JobError if it is taken.
    """

    def __init__(
        self, handler: type[OutputHandler], page: str, store: Store, *, port: int = 0, **attributes: Any
    ) -> None:
        token = secrets.token_urlsafe(16)
        own: type[OutputHandler] = type("Handler", (handler,), {"store": store, "token": token, **attributes})
        try:
            self._server = _Server(("127.0.0.1", port), own)
        except OSError as error:
            raise JobError(f"port {port}: {error.strerror}", "choose another one with --port") from None
        own.hosts = tuple(f"{name}:{self._server.server_port}" for name in ("127.0.0.1", "localhost"))
        self.url = f"http://{own.hosts[0]}/{token}/{page}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True, name="page")
        self._thread.start()

    def wait(self) -> None:
        """Return once it is closed, or never."""
        while self._thread.is_alive():  # a signal that comes just before a thread blocks does not wake it
            self._thread.join(0.5)

    def close(self) -> None:
        """Stop the server; open requests get no answer."""
        self._server.shutdown()
        self._server.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
