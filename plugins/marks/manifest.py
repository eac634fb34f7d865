"""In: a clip's file. Out: the same with a signed C2PA manifest.

Signed with a key of the user's by c2pa-python (framefleet[c2pa]). Nothing is asked of a network, but a time
stamp of the authority that the job names.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from PIL import Image
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_random_exponential

import framefleet
from framefleet.pipeline.errors import AuthorityError, JobError
from framefleet.pipeline.guards.redaction import public_url
from framefleet.plugins.marks.label import IPTC_SPACE, SOURCE_TYPE
from framefleet.plugins.marks.settings import ClipMarks, Signing
from framefleet.plugins.marks.signing import key_of, leaf_of, read_pem

ASSERTION = "framefleet.clip"
# Thumbnails would be copies of what is in the file; manifests elsewhere and revocations are on networks.
SETTINGS = {
    "builder": {"thumbnail": {"enabled": False}},
    "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False},
}
_MINED = ("ai_generative_training", "ai_training", "ai_inference", "data_mining")
# An authority that is out of reach is asked again for as long as a store; one of a job that begins is not.
_OUTAGE_S, _FIRST_ANSWER_S = 600.0, 10.0
# Of files that have a place for manifests. HEIC, AVIF, M4A and QuickTime are of mp4's family.
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
    """A file that a row started from. argument: of the pipeline. name: without what is secret.

    found: its marks, as JSON has them.
    """

    argument: str
    name: str
    sha256: str
    content: bytes
    found: Mapping[str, Any] = field(default_factory=dict)

    def description(self) -> dict[str, Any]:
        """Return what records and manifests say of it."""
        return {"argument": self.argument, "sha256": self.sha256, **self.found}


def open_signing(signing: Signing) -> Signing:
    """Return how clips are signed, with its certificates read. certificate: given as a file on this machine.

    Raises JobError for a certificate that cannot be used; for a key that does not fit, if it is here.
    """
    if find_spec("c2pa") is None:
        fix = "pip install 'framefleet[c2pa]', on every machine"
        raise JobError("marks.sign needs c2pa-python", fix)
    chain = read_pem("marks.sign.certificate", signing.certificate)
    opened = replace(signing, certificate=chain.decode("utf-8", "replace"))
    leaf_of(opened)
    if Path(signing.private_key).exists():
        check_signing(opened)
    return opened


def check_signing(signing: Signing) -> None:
    """Sign one pixel. Raises JobError where this machine cannot sign as the job asks, and AuthorityError.

    Whether a certificate is one for content is known to c2pa alone.
    """
    import c2pa

    pixel = io.BytesIO()
    Image.new("RGB", (1, 1)).save(pixel, format="PNG")
    untimed = ClipMarks(sign=replace(signing, time_authority=None))
    try:
        sign(pixel.getvalue(), marks=untimed, title="", made={})
    except c2pa.C2paError as error:
        raise JobError(
            f"marks.sign.certificate does not sign content: {error}",
            "use one that C2PA's profile allows: not self-signed, for document signing or email protection, "
            "with those that issued it behind it",
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
    """Return the file with a manifest in it. made: what it says of the clip, besides that a model made it.

    No two are equal: manifests have a name, a time and salts of their own. Raises AuthorityError where the
    authority gives no time stamp for this long.
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
            "give the URL of an authority that answers RFC 3161 requests over http",
        ) from None


def mime_type_of(content: bytes) -> str | None:
    """Return the type of a file that has a place for manifests."""
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
        assertions["cawg.metadata"] = _metadata(provider, made)
    if marks.training:
        entries = {f"cawg.{name}": {"use": marks.training} for name in _MINED}
        assertions["cawg.training-mining"] = {"entries": entries}
    listed = [{"label": label, "data": assertion} for label, assertion in assertions.items()]
    return {"claim_generator_info": [agent], "title": title, "assertions": listed}


def _metadata(provider: Mapping[str, str], made: Mapping[str, str]) -> dict[str, Any]:
    """Return what IPTC's and Dublin Core's properties say, as JSON-LD."""
    properties = {
        "@context": {"Iptc4xmpExt": IPTC_SPACE, "dc": "http://purl.org/dc/elements/1.1/"},
        "Iptc4xmpExt:DigitalSourceType": SOURCE_TYPE,
        "Iptc4xmpExt:AISystemUsed": provider.get("system"),
        "Iptc4xmpExt:AISystemVersionUsed": provider.get("version"),
        "dc:identifier": made.get("row_id"),
        "dc:publisher": [provider["name"]],
        "dc:rights": made.get("license"),
    }
    return _filled(**properties)


def _filled(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value}
