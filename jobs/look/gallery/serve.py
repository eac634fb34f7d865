"""A gallery on this machine's own address, which keeps the stars and notes of all who look in the output.

    http://127.0.0.1:PORT/TOKEN/gallery/index.html    the page; besides only clips/ and previews/
    http://127.0.0.1:PORT/TOKEN/picks                 GET: all of them; POST: one change, of one clip

Whoever has the URL may look and choose; other users of the machine and pages of the web do not know it.
Pages of the web are also recognised by `Host`, a name of theirs that leads here, and `Origin`.
"""

from __future__ import annotations

import json
import logging
import re
import secrets
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from mimetypes import guess_type
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from framefleet.jobs.look.gallery.gallery import INDEX
from framefleet.pipeline.errors import FramefleetError, JobError, NoFile
from framefleet.pipeline.guards.json_text import parse_json
from framefleet.pipeline.outputs.layout import CLIPS, GALLERY, PICKS, PREVIEWS
from framefleet.pipeline.outputs.parts.records import ROW_ID
from framefleet.pipeline.outputs.stores.json_file import read_as
from framefleet.pipeline.outputs.stores.store import Store

_SERVED = re.compile(rf"(?:{GALLERY}|{CLIPS}|{PREVIEWS})/[A-Za-z0-9_.-]+(?:/[A-Za-z0-9_.-]+)*", re.ASCII)
_RANGE = re.compile(r"bytes=(\d{1,15})-(\d{0,15})", re.ASCII)
_MAX_FILE, _MAX_CHANGE, _MAX_PICKS = 1 << 30, 1 << 16, 1 << 28  # bytes
# The page may ask this server alone, and knows by the second line that it keeps picks.
_FILES_ALONE, _ASKS_TOO = b"default-src 'none';", b"default-src 'none'; connect-src 'self';"
_PLACE = b'<meta name="framefleet-picks" content="../picks">'

log = logging.getLogger(__name__)


class _Pick(BaseModel):
    """What is kept of one clip, and a change of it."""

    model_config = ConfigDict(strict=True)

    row_id: Annotated[str, Field(pattern=ROW_ID)]
    stars: Annotated[int, Field(ge=0, le=5)] = 0
    note: Annotated[str, Field(max_length=10_000)] = ""


_PICK = TypeAdapter(_Pick)


class KeptPicks:
    """The file of stars and notes of an output, a line for each clip; read again for every change."""

    def __init__(self, store: Store) -> None:
        self._store, self._lock = store, threading.Lock()

    def all(self) -> dict[str, _Pick]:
        """Return them by row_id. Raises JobError for a line that is none."""
        try:
            lines = self._store.read(PICKS, _MAX_PICKS).splitlines()
        except FileNotFoundError:
            return {}
        where = self._store.url_of(PICKS)
        picks = (read_as(_PICK, line, where) for line in lines if line.strip())
        return {pick.row_id: pick for pick in picks}

    def change(self, pick: _Pick) -> None:
        """Keep what is said of one clip, in place of what was; nothing of one without stars and note."""
        with self._lock:
            picks = self.all()
            picks.pop(pick.row_id, None)
            if pick.stars or pick.note:
                picks[pick.row_id] = pick
            lines = [f"{json.dumps(one.model_dump())}\n" for one in picks.values()]
            self._store.write(PICKS, "".join(lines).encode())


class GalleryServer:
    """Serves the gallery of an output, which is written, until it is closed. url: of its page.

    port: 0 takes a free one. Raises JobError where it is taken.
    """

    def __init__(self, store: Store, *, port: int = 0) -> None:
        token = secrets.token_urlsafe(16)
        picks = KeptPicks(store)
        picks.all()  # raises now where the file is damaged

        class Handler(_Handler):
            pass

        Handler.store, Handler.picks, Handler.token = store, picks, token
        try:
            self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        except OSError as error:
            raise JobError(f"port {port}: {error.strerror}", "choose another one with --port") from None
        self._server.daemon_threads = True
        Handler.hosts = tuple(f"{name}:{self._server.server_port}" for name in ("127.0.0.1", "localhost"))
        self.url = f"http://{Handler.hosts[0]}/{token}/{INDEX}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True, name="gallery")
        self._thread.start()

    def wait(self) -> None:
        """Return once it is closed, or never."""
        self._thread.join()

    def close(self) -> None:
        """End it; what is under way is answered no more."""
        self._server.shutdown()
        self._server.server_close()

    def __enter__(self) -> GalleryServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Handler(BaseHTTPRequestHandler):
    """Answers one request. Nothing of it is trusted."""

    store: Store
    picks: KeptPicks
    token: str
    hosts: tuple[str, ...]
    timeout = 60
    server_version, sys_version = "framefleet", ""
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if (path := self._path()) is None:
            return
        try:
            if path == "picks":
                found = [[key, pick.model_dump(exclude={"row_id"})] for key, pick in self.picks.all().items()]
                self._answer(json.dumps(found).encode(), "application/json")
            elif _SERVED.fullmatch(path) and ".." not in path:
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
        if path != "picks":
            self._refuse(HTTPStatus.NOT_FOUND)
        elif self.headers.get("Origin") != f"http://{self.headers['Host']}":
            self._refuse(HTTPStatus.FORBIDDEN)
        elif self.headers.get("Content-Type") != "application/json":
            self._refuse(HTTPStatus.UNSUPPORTED_MEDIA_TYPE)
        elif not re.fullmatch(r"\d{1,9}", length, re.ASCII) or int(length) > _MAX_CHANGE:
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        else:
            self._change(self.rfile.read(int(length)))

    def _change(self, body: bytes) -> None:
        try:
            self.picks.change(_PICK.validate_python(parse_json(body)))
        except (ValidationError, ValueError):
            self._refuse(HTTPStatus.BAD_REQUEST)
        except FramefleetError as error:  # the page tries again
            log.warning("%s", error)
            self._refuse(HTTPStatus.BAD_GATEWAY)
        else:
            self._answer(b"{}", "application/json")

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
        content = self.store.read(path, last + 1)[first:]
        if path == INDEX:
            content = content.replace(_FILES_ALONE, _ASKS_TOO, 1).replace(b"<head>", b"<head>" + _PLACE, 1)
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
