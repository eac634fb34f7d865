"""A web server on this machine that answers as real ones do on bad days."""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import ThreadingHTTPServer

import pytest

from tests.answering import Answering
from tests.media_files import image_file, video_file

PAGE = b"<!DOCTYPE html><html><body>secret of the page</body></html>"


@dataclass(slots=True)
class WebServer:
    """requests: (path, headers) of every request so far. answers, redirects: what is there, by path."""

    url: str = ""
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    answers: dict[str, bytes] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)

    def paths(self) -> list[str]:
        return [path for path, _ in self.requests]


@pytest.fixture
def web() -> Iterator[WebServer]:
    served = WebServer(answers={"/img/a.png": image_file(), "/img/b.mp4": video_file(), "/img/page": PAGE})

    class Handler(Answering):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            served.requests.append((self.path, dict(self.headers)))
            earlier = served.paths().count(self.path) - 1
            path, _, query = self.path.partition("?")
            if path in served.redirects:
                self.answer(302, PAGE, {"Location": served.redirects[path]})
            elif path == "/img/status":  # of each attempt in turn; then the content
                statuses = query.split(",")
                status = int(statuses[earlier]) if earlier < len(statuses) else 200
                extra = {"Retry-After": "0"} if status == 429 else {}
                self.answer(status, served.answers["/img/a.png"] if status != 204 else b"", extra)
            elif path.startswith("/img/bad/"):
                getattr(self, path.removeprefix("/img/bad/"))()
            elif path in served.answers:
                self.answer(200, served.answers[path])
            else:
                self.answer(404, PAGE)

        def send_response(self, code: int, message: str | None = "secret of the status line") -> None:
            super().send_response(code, message)

        def silent(self) -> None:
            time.sleep(60)
            self.close_connection = True

        def trickle(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.close_connection = True
            for _ in range(30):
                self.wfile.write(b"1")
                time.sleep(0.1)

        def endless(self) -> None:
            """Say no length, and send a gigabyte."""
            self.send_response(200)
            self.end_headers()
            self.close_connection = True
            for _ in range(1 << 14):
                self.wfile.write(bytes(1 << 16))

        def huge(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(1 << 40))
            self.end_headers()
            self.close_connection = True

        def cut_off(self) -> None:
            content = served.answers["/img/a.png"]
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[:100])
            self.close_connection = True

        def gzip_bomb(self) -> None:
            self.answer(200, gzip.compress(bytes(1 << 24)), {"Content-Encoding": "gzip"})

        def no_http(self) -> None:
            self.wfile.write(b"SSH-2.0-secret\r\n\r\n")
            self.close_connection = True

        def log_error(self, *_: object) -> None:
            """Say nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """Say nothing: clients that hang up are the test."""

    with Server(("127.0.0.1", 0), Handler) as server:
        served.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield served
        server.shutdown()
