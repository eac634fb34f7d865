"""A time authority on this machine: RFC 3161 over http, answered by `openssl ts`."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.answering import Answering, answered_by

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

    class Handler(Answering):
        def do_POST(self) -> None:
            authority.num_asked += 1
            query = self.body()
            if authority.is_down:
                return self.answer(503)
            (folder / "query").write_bytes(query)
            content = _openssl(folder, "ts -reply -config ts.cnf -section ours -queryfile query")
            self.answer(200, content, {"Content-Type": "application/timestamp-reply"})

    with answered_by(Handler) as url:
        authority = TimeAuthority(f"{url}/", (folder / "root.pem").read_text())
        yield authority


def _openssl(folder: Path, command: str) -> bytes:
    done = subprocess.run(["openssl", *command.split()], cwd=folder, capture_output=True, check=True)
    return done.stdout
