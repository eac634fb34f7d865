"""A certificate and the key that it was issued for, checked. The key stays on the machine that signs."""

from __future__ import annotations

import socket
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING

from framefleet.pipeline.errors import JobError
from framefleet.pipeline.guards.regular_file import read_regular
from framefleet.plugins.marks.settings import Signing

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
    from cryptography.x509 import Certificate

_CURVES = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}
_MAX_BYTES = 1 << 20  # of a trust list, the longest of these files


def certificate_sha256(signing: Signing) -> str:
    """Return the certificate's SHA-256, as `openssl x509 -fingerprint -sha256` shows it, without colons."""
    from cryptography.hazmat.primitives.hashes import SHA256

    return leaf_of(signing).fingerprint(SHA256()).hex()


@cache  # asked for every clip
def key_of(signing: Signing) -> tuple[bytes, str]:
    """Return the private key and its algorithm, as c2pa names it. Raises JobError where it does not fit."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

    what = "marks.sign.private_key"
    content = read_pem(what, signing.private_key)
    try:
        key = load_pem_private_key(content, password=None)
    except (ValueError, TypeError):  # their texts may quote the file
        raise JobError(
            f"{what}: {signing.private_key} is not a private key in PEM, without a password",
            "openssl pkcs8 -topk8 -nocrypt makes one of a key with a password",
        ) from None
    formats = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if key.public_key().public_bytes(*formats) != leaf_of(signing).public_key().public_bytes(*formats):
        raise JobError(
            f"{what}: {signing.private_key} is not the key of marks.sign.certificate",
            "name the key that the certificate was issued for; the certificate stands first in its file",
        )
    return content, _algorithm(key, what)


def _algorithm(key: PrivateKeyTypes, what: str) -> str:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in _CURVES:
        return _CURVES[key.curve.name]
    if isinstance(key, rsa.RSAPrivateKey):
        return "ps256"
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return "ed25519"
    raise JobError(f"{what} is of a kind that C2PA does not have", "use ES256, PS256 or Ed25519")


@cache
def leaf_of(signing: Signing) -> Certificate:
    """Return the certificate that signs, which is the first of its chain. Raises JobError for a bad one."""
    from cryptography.x509 import load_pem_x509_certificates

    what = "marks.sign.certificate"
    try:
        leaf = load_pem_x509_certificates(signing.certificate.encode())[0]
    except ValueError:
        raise JobError(
            f"{what} is not a certificate in PEM",
            "name a file of certificates: first the one that signs, then those that issued it",
        ) from None
    if not leaf.not_valid_before_utc <= datetime.now(UTC) <= leaf.not_valid_after_utc:
        raise JobError(
            f"{what} is valid from {leaf.not_valid_before_utc:%Y-%m-%d} to "
            f"{leaf.not_valid_after_utc:%Y-%m-%d}, which is not now",
            "renew it",
        )
    return leaf


def read_pem(what: str, path: str) -> bytes:
    """Return the content of a file of certificates or a key. Raises JobError. what: for messages."""
    try:
        return read_regular(path, _MAX_BYTES)
    except OSError as error:
        raise JobError(
            f"{what}: {path} cannot be read on {socket.gethostname()}: {error.strerror}",
            "name a file that is on every worker's machine" if "key" in what else "name a file here",
        ) from None
