"""Add a signed C2PA manifest to a clip's file.

c2pa-python (framefleet[c2pa]) signs it with the user's key. The only use of a network is for a time stamp, if
the job names an authority.
"""

from __future__ import annotations

import io
import json
import re
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_random_exponential

import framefleet
from framefleet.api.errors import JobError
from framefleet.api.texts import public_url
from framefleet.pipeline.errors import AuthorityError
from framefleet.pipeline.guards.regular_file import read_regular
from framefleet.plugins.marks.label import IPTC_SPACE, SOURCE_TYPE
from framefleet.plugins.marks.settings import ClipMarks, Signing

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

_CURVES = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}
_MAX_BYTES = 1 << 20  # enough for a trust list, the longest of these files


def certificate_sha256(signing: Signing) -> str:
    """Return the certificate's SHA-256, as in `openssl x509 -fingerprint -sha256`, without colons."""
    from cryptography.hazmat.primitives.hashes import SHA256

    return leaf_of(signing).fingerprint(SHA256()).hex()


@cache  # called for every clip
def key_of(signing: Signing) -> tuple[bytes, str]:
    """Return the private key and c2pa's name of its algorithm. Raises JobError if it does not fit."""
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

    what = "marks.sign.private_key"
    content = read_pem(what, signing.private_key)
    try:
        key = load_pem_private_key(content, password=None)
    except (ValueError, TypeError):  # their texts may quote the file
        problem = f"{what}: {signing.private_key} is not a private key in PEM without a password"
        raise JobError(problem, "remove a password with openssl pkcs8 -topk8 -nocrypt") from None
    formats = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if key.public_key().public_bytes(*formats) != leaf_of(signing).public_key().public_bytes(*formats):
        raise JobError(
            f"{what}: {signing.private_key} is not the key of marks.sign.certificate",
            "use the key of the certificate, which must be the first one in its file",
        )
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in _CURVES:
        return content, _CURVES[key.curve.name]
    if isinstance(key, rsa.RSAPrivateKey):
        return content, "ps256"
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return content, "ed25519"
    raise JobError(f"{what} is of a type that C2PA does not support", "use ES256, PS256 or Ed25519")


@cache
def leaf_of(signing: Signing) -> Certificate:
    """Return the signing certificate, the first of its chain. Raises JobError if it is invalid."""
    from cryptography.x509 import load_pem_x509_certificates

    what = "marks.sign.certificate"
    try:
        leaf = load_pem_x509_certificates(signing.certificate.encode())[0]
    except ValueError:
        raise JobError(
            f"{what} is not a certificate in PEM",
            "use a file of certificates: first the one that signs, then its issuers",
        ) from None
    if not leaf.not_valid_before_utc <= datetime.now(UTC) <= leaf.not_valid_after_utc:
        raise JobError(
            f"{what} is valid from {leaf.not_valid_before_utc:%Y-%m-%d} to "
            f"{leaf.not_valid_after_utc:%Y-%m-%d}, but not now",
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
            "use a file that is on every worker's machine" if "key" in what else "use a file on this machine",
        ) from None


ASSERTION = "framefleet.clip"
# Thumbnails would repeat what is in the file. Remote manifests and revocations would need a network.
SETTINGS = {
    "builder": {"thumbnail": {"enabled": False}},
    "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False},
}
_MINED = ("ai_generative_training", "ai_training", "ai_inference", "data_mining")
# An authority that cannot be reached is asked again for as long as a store, but not when a job starts.
_OUTAGE_S, _FIRST_ANSWER_S = 600.0, 10.0
# Types with a place for manifests. HEIC, AVIF, M4A and QuickTime belong to mp4's family.
_FORMATS = (
    (rb"\x89PNG\r\n\x1a\n", "image/png"),
    (rb"\xff\xd8\xff", "image/jpeg"),
    (rb"RIFF....WEBP", "image/webp"),
    (rb"GIF8", "image/gif"),
    (rb"II\*\0|MM\0\*", "image/tiff"),
    (rb"....ftyp", "video/mp4"),
    (rb"RIFF....WAVE", "audio/wav"),
    (rb"RIFF....AVI ", "video/avi"),
    (rb"fLaC", "audio/flac"),
    (rb"ID3|\xff[\xfb\xf3\xf2]", "audio/mpeg"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ingredient:
    """A file that a row started from."""

    argument: str  # of the pipeline
    name: str  # without secrets
    sha256: str
    content: bytes
    found: Mapping[str, Any] = field(default_factory=dict)  # its marks, as JSON values

    def description(self) -> dict[str, Any]:
        return {"argument": self.argument, "sha256": self.sha256, **self.found}


def open_signing(signing: Signing) -> Signing:
    """Return the settings with the content of the certificate file on this machine.

    Raises JobError for an invalid certificate, and for a key that does not fit, if the key is here.
    """
    if find_spec("c2pa") is None:
        fix = "pip install 'framefleet[c2pa]', on every machine"
        raise JobError("marks.sign needs c2pa-python", fix)
    chain = read_pem("marks.sign.certificate", signing.certificate)
    opened = signing.model_copy(update={"certificate": chain.decode("utf-8", "replace")})
    leaf_of(opened)
    if Path(signing.private_key).exists():
        check_signing(opened)
    return opened


def check_signing(signing: Signing) -> None:
    """Sign one pixel, as only c2pa knows whether a certificate may sign content.

    Raises JobError if this machine cannot sign as the job asks, and AuthorityError.
    """
    import c2pa

    pixel = io.BytesIO()
    Image.new("RGB", (1, 1)).save(pixel, format="PNG")
    untimed = ClipMarks(sign=signing.model_copy(update={"time_authority": None}))
    try:
        sign(pixel.getvalue(), marks=untimed, title="", made={})
    except c2pa.C2paError as error:
        raise JobError(
            f"marks.sign.certificate cannot sign content: {error}",
            "use one that C2PA's profile allows: not self-signed, for document signing or email protection, "
            "followed by its issuers",
        ) from None
    if signing.time_authority:
        timed = ClipMarks(sign=signing)
        sign(pixel.getvalue(), marks=timed, title="", made={}, patience_s=_FIRST_ANSWER_S)


def sign(
    content: bytes,
    *,
    marks: ClipMarks,
    title: str,
    made: Mapping[str, str],
    inputs: Sequence[Ingredient] = (),
    patience_s: float = _OUTAGE_S,
) -> bytes:
    """Return the file with a manifest. made: statements about the clip, besides that a model made it.

    No two files are equal, since manifests have unique names, times and salts. Raises AuthorityError if the
    authority gives no time stamp in the given time.
    """
    import c2pa

    assert marks.sign is not None
    manifest, authority = _manifest(title, marks, made, inputs), marks.sign.time_authority
    again = Retrying(
        retry=retry_if_exception_type(c2pa.C2paError.Signature if authority else ()),
        wait=wait_random_exponential(multiplier=0.2, max=5),
        stop=stop_after_delay(patience_s),
        reraise=True,
    )
    try:
        return again(_signed, content, marks.sign, manifest, inputs)
    except c2pa.C2paError.Signature as error:
        if authority is None:
            raise
        shown = public_url(authority)  # the key was tried before
        raise AuthorityError(
            f"marks.sign.time_authority: {shown} gives no time stamp: "
            + str(error).replace(authority, shown),
            "use the URL of an authority that answers RFC 3161 requests over http",
        ) from None


def mime_type_of(content: bytes) -> str | None:
    """Return the type of a file, if it has a place for manifests."""
    start = content[:16]
    return next((name for mark, name in _FORMATS if re.match(mark, start, re.DOTALL)), None)


def _signed(
    content: bytes, signing: Signing, manifest: Mapping[str, Any], inputs: Sequence[Ingredient]
) -> bytes:
    import c2pa

    key, algorithm = key_of(signing)
    authority = signing.time_authority and signing.time_authority.encode()
    info = c2pa.C2paSignerInfo(algorithm.encode(), signing.certificate.encode(), key, authority)
    signed = io.BytesIO()
    with (
        c2pa.Signer.from_info(info) as signer,
        c2pa.Context(c2pa.Settings.from_dict(SETTINGS)) as context,
        c2pa.Builder(manifest, context) as builder,
    ):
        for number, one in enumerate(inputs):
            if kind := mime_type_of(one.content):
                ingredient = {"title": one.name, "relationship": "inputTo", "label": f"input{number}"}
                builder.add_ingredient(json.dumps(ingredient), kind, io.BytesIO(one.content))
        builder.sign(signer, mime_type_of(content), io.BytesIO(content), signed)
    return signed.getvalue()


def _manifest(
    title: str, marks: ClipMarks, made: Mapping[str, str], inputs: Sequence[Ingredient]
) -> dict[str, Any]:
    agent = {"name": "framefleet", "version": framefleet.__version__}
    provider = marks.provider.description() if marks.provider else {}
    labels = [f"input{number}" for number, one in enumerate(inputs) if mime_type_of(one.content)]
    created = {
        "action": "c2pa.created",
        "digitalSourceType": SOURCE_TYPE,
        "softwareAgent": _filled(name=provider.get("system"), version=provider.get("version")) or agent,
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
    } | _filled(parameters=_filled(ingredientIds=labels))
    clip = {
        **made,
        **_filled(
            provider=provider,
            watermarks=[one.name for one in marks.watermarks],
            inputs=[one.description() for one in inputs],
        ),
    }
    assertions = {"c2pa.actions.v2": {"actions": [created]}, ASSERTION: clip}
    if provider:
        assertions["cawg.metadata"] = _filled(  # properties of IPTC and Dublin Core, as JSON-LD
            **{
                "@context": {"Iptc4xmpExt": IPTC_SPACE, "dc": "http://purl.org/dc/elements/1.1/"},
                "Iptc4xmpExt:DigitalSourceType": SOURCE_TYPE,
                "Iptc4xmpExt:AISystemUsed": provider.get("system"),
                "Iptc4xmpExt:AISystemVersionUsed": provider.get("version"),
                "dc:identifier": made.get("row_id"),
                "dc:publisher": [provider["name"]],
                "dc:rights": made.get("license"),
            }
        )
    if marks.training:
        entries = {f"cawg.{name}": {"use": marks.training} for name in _MINED}
        assertions["cawg.training-mining"] = {"entries": entries}
    listed = [{"label": label, "data": assertion} for label, assertion in assertions.items()]
    return {"claim_generator_info": [agent], "title": title, "assertions": listed}


def _filled(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value}
