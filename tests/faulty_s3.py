"""A proxy before a real S3 server, that goes wrong as it is told: in a test, or as a process of its own.

python -m tests.faulty_s3 --upstream http://127.0.0.1:8090 --port 8091
curl -X POST 'http://127.0.0.1:8091/-/fault?kind=503&share=0.05&methods=PUT'
curl -X POST 'http://127.0.0.1:8091/-/fault?kind=refuse&seconds=20'
curl -X POST 'http://127.0.0.1:8091/-/fault?kind=none'
"""

from __future__ import annotations

import argparse
import random
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

CODES = {  # answered in the place of the server
    "500": (500, "InternalError"),
    "503": (503, "SlowDown"),
    "denied": (403, "AccessDenied"),
    "expired": (400, "ExpiredToken"),
    "invalid": (400, "InvalidArgument"),
    "unconditional": (501, "NotImplemented"),  # to requests with a condition alone
    # To requests with S3's newer checksums alone: Backblaze B2, Cloudflare R2, Google Cloud Storage.
    "unsupported-header": (400, "InvalidArgument"),
    "no-checksums": (501, "NotImplemented"),
    "other-signature": (403, "SignatureDoesNotMatch"),
    "unknown-key": (403, "InvalidAccessKeyId"),  # to keys that are not in `keys` alone
}
CHECKSUMS_REFUSED = ("unsupported-header", "no-checksums", "other-signature")
KINDS = {
    "none",
    "refuse",  # nobody listens
    "hang",  # taken, never answered
    "reset",
    "lost",  # carried out, and the answer cut off
    "damaged",  # the body arrives with another last byte
    "halved",  # and with half its length
    "heedless",  # to conditions
    *CODES,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What goes wrong with a share of the requests of some methods, at most so many times; 0: no end of them.

    seconds: after which it is over; 0: never. keys: access keys that are known. is_bare: answers with errors,
    also those of the real server, have no body, as those of some proxies.
    """

    kind: str = "none"
    share: float = 1.0
    methods: frozenset[str] = frozenset({"GET", "HEAD", "PUT", "POST", "DELETE"})
    count: int = 0
    seconds: float = 0.0
    keys: frozenset[str] = frozenset()
    is_bare: bool = False


class FaultyS3:
    """What is listening. endpoint: of the proxy. num_faults: how many requests went wrong so far."""

    def __init__(
        self,
        upstream: str,
        *,
        port: int = 0,
        host: str = "127.0.0.1",
        network: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        """network: in which it listens, but not where the real server is looked for."""
        self._upstream = upstream.removeprefix("http://")
        self._address, self._network = (host, port), network
        self._lock = threading.Lock()
        self._fault, self._since, self._num_left = Fault(), 0.0, 0
        self.num_faults = 0
        self.sent: list[tuple[str, dict[str, str]]] = []  # methods and headers, as they came
        with network():  # so that nobody else gets the port while nobody listens
            self.place = socket.socket()
            self.place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self.place.bind(self._address)
        self._address = self.place.getsockname()
        self._listen()

    @property
    def endpoint(self) -> str:
        return f"http://{self._address[0]}:{self._address[1]}"

    def goes_wrong(self, fault: Fault) -> None:
        """Let this go wrong from now on, and nothing else."""
        assert fault.kind in KINDS, fault.kind
        with self._lock:
            was_refusing = self._fault.kind == "refuse"
            self._fault, self._since, self._num_left = fault, time.monotonic(), fault.count
        if fault.kind == "refuse":
            self.close()
            if fault.seconds:
                threading.Timer(fault.seconds, self.goes_wrong, [Fault()]).start()
        elif was_refusing:
            self._listen()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def next_fault(self, request: BaseHTTPRequestHandler) -> str:
        """Return what goes wrong with a request."""
        with self._lock:
            fault = self._fault
            self.sent.append((request.command, dict(request.headers)))
            is_over = fault.seconds and time.monotonic() - self._since > fault.seconds
            is_spared = request.command not in fault.methods or random.random() >= fault.share
            if is_over or is_spared or (fault.count and not self._num_left) or not _concerns(fault, request):
                return "none"
            self._num_left -= 1
            self.num_faults += fault.kind != "none"
            return fault.kind

    def is_bare(self) -> bool:
        return self._fault.is_bare

    def hangs(self) -> bool:
        return self._fault.kind == "hang"

    def _listen(self) -> None:
        with self._network():
            self._server = _Server(self._address, _handler(self, self._upstream))
        self._address = self._address[0], self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()


@contextmanager
def faulty_s3(upstream: str, **fault: Any) -> Iterator[FaultyS3]:
    """Yield a proxy that goes wrong like that; see Fault."""
    server = FaultyS3(upstream)
    server.goes_wrong(Fault(**fault))
    try:
        yield server
    finally:
        server.close()
        server.place.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # what hangs
    request_queue_size = 128


def _concerns(fault: Fault, request: BaseHTTPRequestHandler) -> bool:
    if fault.kind == "unconditional":
        return "If-None-Match" in request.headers
    if fault.kind in CHECKSUMS_REFUSED:
        prefixes = ("x-amz-checksum-", "x-amz-sdk-checksum-", "x-amz-trailer")
        return any(name.lower().startswith(prefixes) for name in request.headers)
    if fault.kind == "unknown-key":
        key = re.search(r"Credential=([^/]+)/", request.headers.get("Authorization", ""))
        return key is None or key[1] not in fault.keys
    return True


def _handler(proxy: FaultyS3, upstream: str) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def pass_on(self) -> None:
            if self.path.startswith("/-/fault"):
                self._be_told()
                return
            body = self._body()
            kind = proxy.next_fault(self)
            if kind in CODES:
                self._answer_code(*CODES[kind])
            elif kind in ("reset", "refuse"):  # refused: on a connection that was open before
                self._cut()
            elif kind == "hang":
                while proxy.hangs():
                    time.sleep(0.05)
                self._cut()
            else:
                self._fetch(body, kind)

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":  # as Arrow's client sends it
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            chunks = []
            while size := int(self.rfile.readline() or b"0", 16):
                chunks.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(chunks)

        def _fetch(self, body: bytes, kind: str) -> None:
            if kind == "damaged" and body:
                body = body[:-1] + bytes([body[-1] ^ 1])
            if kind == "halved":
                body = body[: len(body) // 2]
            dropped = {"transfer-encoding", "if-none-match" if kind == "heedless" else ""}
            sent = {name: value for name, value in self.headers.items() if name.lower() not in dropped}
            headers = sent | ({"Content-Length": str(len(body))} if body else {})
            connection = HTTPConnection(upstream, timeout=60)
            try:
                connection.request(self.command, self.path, body, headers)
                answer = connection.getresponse()
                content = answer.read()
            except (OSError, HTTPException):  # the server is gone
                self._cut()
                return
            finally:
                connection.close()
            if kind == "lost":
                self._cut()
            else:
                self._answer(answer.status, dict(answer.getheaders()), content)

        def _answer(self, status: int, headers: dict[str, str], content: bytes) -> None:
            content = b"" if status >= 400 and proxy.is_bare() else content
            self.send_response_only(status)
            is_counted = self.command != "HEAD"  # Ceph's answers come in chunks, and are joined here
            left_out = {"connection", "transfer-encoding"} | ({"content-length"} if is_counted else set())
            for name, value in headers.items():
                if name.lower() not in left_out:
                    self.send_header(name, value)
            if is_counted:
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def _answer_code(self, status: int, code: str) -> None:
            content = f"<Error><Code>{code}</Code><Message>as told</Message></Error>".encode()
            headers = {"Content-Type": "application/xml"}
            self._answer(status, headers, b"" if self.command == "HEAD" else content)

        def _cut(self) -> None:
            """Close with a reset, and without an answer."""
            self.close_connection = True
            with suppress(OSError):
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

        def _be_told(self) -> None:
            asked = {name: values[-1] for name, values in parse_qs(urlsplit(self.path).query).items()}
            told: dict[str, Any] = {"kind": asked.get("kind", "none")}
            told |= {name: frozenset(asked[name].split(",")) for name in ("methods", "keys") if name in asked}
            told |= {name: float(asked[name]) for name in ("share", "seconds") if name in asked}
            told |= {name: int(asked[name]) for name in ("count",) if name in asked}
            self._answer(200, {}, b"")
            threading.Thread(target=proxy.goes_wrong, args=[Fault(**told)], daemon=True).start()

        do_PUT = do_GET = do_HEAD = do_POST = do_DELETE = pass_on

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    return Handler


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--upstream", required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    asked = parser.parse_args()
    proxy = FaultyS3(asked.upstream, port=asked.port, host=asked.host)
    print(f"at {proxy.endpoint}", flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
