"""A time authority on this machine: RFC 3161 over http, answered by `openssl ts`."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

_CONFIG = """
[req]
distinguished_name = name
[name]
[tsa]
basicConstraints = critical,CA:FALSE
keyUsage = critical,digitalSignature
extendedKeyUsage = critical,timeStamping
[ts]
default_tsa = ours
[ours]
serial = serial
crypto_device = builtin
signer_cert = tsa.pem
certs = root.pem
signer_key = tsa.key
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = sha256, sha384, sha512
accuracy = secs:1
ess_cert_id_alg = sha256
"""
_NEW = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -config ts.cnf"
_COMMANDS = (
    f"req -x509 {_NEW} -keyout root.key -out root.pem -days 30 -subj /O=tests/CN=time_root "
    "-addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign",
    f"req {_NEW} -keyout tsa.key -out tsa.csr -subj /O=tests/CN=time_authority",
    "x509 -req -in tsa.csr -CA root.pem -CAkey root.key -CAcreateserial -out tsa.pem -days 30 "
    "-extfile ts.cnf -extensions tsa",
)


@dataclass(slots=True)
class TimeAuthority:
    """root: its certificate, in PEM. num_asked: requests so far. is_down: it answers 503."""

    url: str
    root: str
    num_asked: int = 0
    is_down: bool = False


@contextmanager
def time_authority(folder: Path) -> Iterator[TimeAuthority]:
    (folder / "ts.cnf").write_text(_CONFIG)
    (folder / "serial").write_text("01\n")
    for command in _COMMANDS:
        _openssl(folder, command)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            authority.num_asked += 1
            query = self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(503 if authority.is_down else 200)
            self.send_header("Content-Type", "application/timestamp-reply")
            self.end_headers()
            if not authority.is_down:
                (folder / "query").write_bytes(query)
                self.wfile.write(_openssl(folder, "ts -reply -config ts.cnf -section ours -queryfile query"))

        def log_message(self, *_: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Handler)
    authority = TimeAuthority(f"http://127.0.0.1:{server.server_port}/", (folder / "root.pem").read_text())
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield authority
    finally:
        server.shutdown()
        server.server_close()


def _openssl(folder: Path, command: str) -> bytes:
    done = subprocess.run(["openssl", *command.split()], cwd=folder, capture_output=True, check=True)
    return done.stdout
