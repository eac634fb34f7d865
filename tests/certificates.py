"""A certificate for signing content and its key, as an authority issues them: `issue(folder)`."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.answering import Answering, answered_by

DAY = timedelta(days=1)


def issue(
    folder: Path, *, name: str = "signer", days: int = 30, is_self_signed: bool = False
) -> tuple[Path, Path]:
    """Write a chain of two certificates and the first one's key; return where. days: of its validity.

    is_self_signed: the authority's own in the place of both.
    """
    root_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    root = _certificate(root_key, _name("test root"), root_key, _name("test root"), days=days, is_root=True)
    leaf = _certificate(key, _name(name), root_key, root.subject, days=days)
    if is_self_signed:
        leaf, key = root, root_key
    certificate, private_key = folder / f"{name}.pem", folder / f"{name}.key"
    certificate.write_bytes(b"".join(one.public_bytes(Encoding.PEM) for one in (leaf, root)))
    private_key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return certificate, private_key


def _name(common: str) -> x509.Name:
    organization = x509.NameAttribute(NameOID.ORGANIZATION_NAME, "tests")
    return x509.Name([organization, x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _certificate(
    key: ec.EllipticCurvePrivateKey,
    subject: x509.Name,
    issuer_key: ec.EllipticCurvePrivateKey,
    issuer: x509.Name,
    *,
    days: int,
    is_root: bool = False,
) -> x509.Certificate:
    """What C2PA's certificate profile asks for: version 3, key identifiers, and one purpose."""
    until = datetime.now(UTC) + days * DAY
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
    builder = (
        x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(min(until, datetime.now(UTC)) - DAY)
        .not_valid_after(until)
        .add_extension(x509.BasicConstraints(ca=is_root, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(identifier, critical=False)
        .add_extension(_usage(is_root=is_root), critical=True)
    )
    if not is_root:
        purpose = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION])
        builder = builder.add_extension(purpose, critical=False)
    return builder.sign(issuer_key, SHA256())


def _usage(*, is_root: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_root,
        key_cert_sign=is_root,
        crl_sign=is_root,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


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
