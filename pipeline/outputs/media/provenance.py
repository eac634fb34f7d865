"""In: a clip's file. Out: the same with a signed C2PA manifest: that a model made it, and which one.

Signed with a key of the user's by c2pa-python (framefleet[c2pa]), which asks nothing of a network. The key is
read where clips are signed and stays there: jobs name its file, and only the certificate travels.
"""

from __future__ import annotations

import io
import socket
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

import framefleet
from framefleet.pipeline.errors import JobError
from framefleet.pipeline.outputs.media.media_settings import Media, Signing

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
    from cryptography.x509 import Certificate

MIME_TYPES = {"mp4": "video/mp4", "png": "image/png"}
# IPTC's word for what a trained model made.
SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
ASSERTION = "framefleet.clip"
_CURVES = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}
_MAX_BYTES = 1 << 18  # of a certificate chain or a key, which have some thousand
# Thumbnails would be copies of what is in the file; manifests elsewhere and revocations are on networks.
_SETTINGS = {
    "builder": {"thumbnail": {"enabled": False}},
    "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False},
}


def open_signing(certificate: str, private_key: str) -> Signing:
    """Return how clips are signed. certificate: a file here, with its chain; private_key: one of each worker.

    Raises JobError for a certificate that cannot be used; for a key that does not fit, if it is here.
    """
    if find_spec("c2pa") is None:
        raise JobError("media.c2pa needs c2pa-python", "pip install 'framefleet[c2pa]', on every machine")
    chain = _read("media.c2pa.certificate", certificate).decode("utf-8", "replace")
    signing = Signing(certificate=chain, private_key=private_key)
    _leaf(signing)
    if Path(private_key).exists():
        _try(signing)
    return signing


def certificate_sha256(signing: Signing) -> str:
    """Return the certificate's SHA-256, as `openssl x509 -fingerprint -sha256` shows it, without colons."""
    from cryptography.hazmat.primitives.hashes import SHA256

    return _leaf(signing).fingerprint(SHA256()).hex()


def check_signing(media: Media) -> None:
    """Raise JobError where this machine cannot sign clips as the job asks."""
    if media.c2pa is not None:
        _try(media.c2pa)


def sign(content: bytes, *, media: Media, title: str, made: Mapping[str, str]) -> bytes:
    """Return the file with a manifest in it. made: what it says of the clip, besides that a model made it.

    No two are equal: manifests have a name, a time and salts of their own.
    """
    import c2pa

    assert media.c2pa is not None
    mime_type, signed = MIME_TYPES[media.format], io.BytesIO()
    with (
        _signer(media.c2pa) as signer,
        c2pa.Context(c2pa.Settings.from_dict(_SETTINGS)) as context,
        c2pa.Builder(_manifest(title, mime_type, made), context) as builder,
    ):
        builder.sign(signer, mime_type, io.BytesIO(content), signed)
    return signed.getvalue()


def _try(signing: Signing) -> None:
    """Sign one pixel: whether a certificate is one for content is known to c2pa alone."""
    import c2pa

    pixel = io.BytesIO()
    Image.new("RGB", (1, 1)).save(pixel, format="PNG")
    try:
        sign(pixel.getvalue(), media=Media(format="png", c2pa=signing), title="", made={})
    except c2pa.C2paError as error:
        raise JobError(
            f"media.c2pa.certificate does not sign content: {error}",
            "use one that C2PA's profile allows: not self-signed, for document signing or email protection, "
            "with those that issued it behind it",
        ) from None


def _manifest(title: str, mime_type: str, made: Mapping[str, str]) -> dict[str, Any]:
    agent = {"name": "framefleet", "version": framefleet.__version__}
    created = {"action": "c2pa.created", "digitalSourceType": SOURCE_TYPE, "softwareAgent": agent}
    return {
        "claim_generator_info": [agent],
        "title": title,
        "format": mime_type,
        "assertions": [
            {"label": "c2pa.actions.v2", "data": {"actions": [created]}},
            {"label": ASSERTION, "data": dict(made)},
        ],
    }


def _signer(signing: Signing) -> Any:
    """Return c2pa's signer with the key of this machine."""
    import c2pa

    key, algorithm = _key_of(signing)
    certificate = signing.certificate.encode()
    return c2pa.Signer.from_info(c2pa.C2paSignerInfo(algorithm.encode(), certificate, key, None))


@cache  # asked for every clip
def _key_of(signing: Signing) -> tuple[bytes, str]:
    """Return the private key and its algorithm, as c2pa names it."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

    content = _read("media.c2pa.private_key", signing.private_key)
    try:
        key = load_pem_private_key(content, password=None)
    except (ValueError, TypeError):  # their texts may quote the file
        raise JobError(
            f"media.c2pa.private_key: {signing.private_key} is not a private key in PEM, without a password",
            "openssl pkcs8 -topk8 -nocrypt makes one of a key with a password",
        ) from None
    formats = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if key.public_key().public_bytes(*formats) != _leaf(signing).public_key().public_bytes(*formats):
        raise JobError(
            f"media.c2pa.private_key: {signing.private_key} is not the key of media.c2pa.certificate",
            "name the key that the certificate was issued for; the certificate stands first in its file",
        )
    return content, _algorithm(key)


def _algorithm(key: PrivateKeyTypes) -> str:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in _CURVES:
        return _CURVES[key.curve.name]
    if isinstance(key, rsa.RSAPrivateKey):
        return "ps256"
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return "ed25519"
    raise JobError(
        "media.c2pa.private_key is of a kind that C2PA does not have", "use ES256, PS256 or Ed25519"
    )


@cache
def _leaf(signing: Signing) -> Certificate:
    """Return the certificate that signs, which is the first of its chain."""
    from cryptography.x509 import load_pem_x509_certificates

    try:
        leaf = load_pem_x509_certificates(signing.certificate.encode())[0]
    except ValueError:
        raise JobError(
            "media.c2pa.certificate is not a certificate in PEM",
            "name a file of certificates: first the one that signs, then those that issued it",
        ) from None
    if not leaf.not_valid_before_utc <= datetime.now(UTC) <= leaf.not_valid_after_utc:
        raise JobError(
            f"media.c2pa.certificate is valid from {leaf.not_valid_before_utc:%Y-%m-%d} to "
            f"{leaf.not_valid_after_utc:%Y-%m-%d}, which is not now",
            "renew it",
        )
    return leaf


def _read(what: str, path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            content = file.read(_MAX_BYTES)
    except OSError as error:
        raise JobError(
            f"{what}: {path} cannot be read on {socket.gethostname()}: {error.strerror}",
            "name a file that is on every worker's machine" if "key" in what else "name a file here",
        ) from None
    return content
