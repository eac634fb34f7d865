"""Pages about an output on this machine's own address, for whoever has the URL.

    http://127.0.0.1:PORT/TOKEN/...    a page, and the files of the output that it shows

Other users of the machine and pages of the web do not know the token. Pages of the web are also recognised by
`Host`, a name of theirs that leads here, and `Origin`.
"""

from __future__ import annotations

import logging
import re
import secrets
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from mimetypes import guess_type
from typing import Any, Self

from framefleet.pipeline.errors import FramefleetError, JobError, NoFile
from framefleet.pipeline.outputs.stores.store import Store

_RANGE = re.compile(r"bytes=(\d{1,15})-(\d{0,15})", re.ASCII)
_NAME = r"/[A-Za-z0-9_.-]+(?:/[A-Za-z0-9_.-]+)*"
_MAX_FILE, _MAX_BODY = 1 << 30, 1 << 16  # bytes

log = logging.getLogger(__name__)


class OutputHandler(BaseHTTPRequestHandler):
    """Answers one request. Nothing of it is trusted. folders: of the output, whose files are served."""

    folders: tuple[str, ...]
    store: Store
    token: str
    hosts: tuple[str, ...]
    timeout = 60
    server_version, sys_version = "framefleet", ""
    protocol_version = "HTTP/1.1"

    def made(self, path: str) -> tuple[bytes, str] | None:
        """Return what is at a path that is no file of the output, and its type; None where nothing is."""
        return None

    def shown(self, path: str, content: bytes) -> bytes:
        """Return a file as it is served."""
        return content

    def take(self, path: str, body: bytes) -> HTTPStatus:
        """Do what a page asks for; say how that went."""
        return HTTPStatus.NOT_FOUND

    def do_GET(self) -> None:
        if (path := self._path()) is None:
            return
        try:
            if made := self.made(path):
                self._answer(*made)
            elif re.fullmatch(f"(?:{'|'.join(self.folders)}){_NAME}", path, re.ASCII) and ".." not in path:
                self._send(path)
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
        """Return what is asked for, below the token; None once a request that is not ours is refused."""
        begin = f"/{self.token}/"
        if self.headers.get("Host") not in self.hosts:
            self._refuse(HTTPStatus.MISDIRECTED_REQUEST)
        elif not secrets.compare_digest(self.path[: len(begin)].encode(), begin.encode()):
            self._refuse(HTTPStatus.NOT_FOUND)
        else:
            return self.path[len(begin) :].partition("?")[0]
        return None

    def _send(self, path: str) -> None:
        size = self.store.stat(path).size
        kind = guess_type(path)[0] or "application/octet-stream"
        asked = _RANGE.fullmatch(self.headers.get("Range", ""))
        first = int(asked[1]) if asked else 0
        last = min(int(asked[2]) if asked and asked[2] else size - 1, size - 1, _MAX_FILE - 1)
        if asked and first > last:
            self._refuse(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
            return
        content = self.shown(path, self.store.read(path, last + 1)[first:])
        self._answer(content, kind, ranged=f"bytes {first}-{last}/{size}" if asked else None)

    def _answer(self, content: bytes, kind: str, *, ranged: str | None = None) -> None:
        self.send_response(HTTPStatus.PARTIAL_CONTENT if ranged else HTTPStatus.OK)
        headers = {"Content-Type": kind, "Content-Length": len(content), "Accept-Ranges": "bytes"}
        headers |= {"Content-Range": ranged} if ranged else {}
        # Other origins neither read nor show what is here; a browser does not guess what a file is.
        headers |= {"Cross-Origin-Resource-Policy": "same-origin", "X-Content-Type-Options": "nosniff"}
        headers |= {"X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer", "Cache-Control": "no-cache"}
        for name, value in headers.items():
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(content)

    def _refuse(self, status: HTTPStatus) -> None:
        self.close_connection = True  # its body was not read
        self.send_error(status)

    def log_message(self, *_: Any) -> None:
        """Log nothing: the token is in every line."""


class PageServer:
    """Serves a page of an output until it is closed. url: of the page, which is at `page`.

    handler: what answers, with these attributes. port: 0 takes a free one. Raises JobError where it is taken.
    """

    def __init__(
        self, handler: type[OutputHandler], page: str, store: Store, *, port: int = 0, **attributes: Any
    ) -> None:
        token = secrets.token_urlsafe(16)
        own: type[OutputHandler] = type("Handler", (handler,), {"store": store, "token": token, **attributes})
        try:
            self._server = ThreadingHTTPServer(("127.0.0.1", port), own)
        except OSError as error:
            raise JobError(f"port {port}: {error.strerror}", "choose another one with --port") from None
        self._server.daemon_threads = True
        own.hosts = tuple(f"{name}:{self._server.server_port}" for name in ("127.0.0.1", "localhost"))
        self.url = f"http://{own.hosts[0]}/{token}/{page}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True, name="page")
        self._thread.start()

    def wait(self) -> None:
        """Return once it is closed, or never."""
        self._thread.join()

    def close(self) -> None:
        """End it; what is under way is answered no more."""
        self._server.shutdown()
        self._server.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
