"""In: a clip's file. Out: the same with a signed C2PA manifest.

Signed with a key of the user's by c2pa-python (framefleet[c2pa]). Nothing is asked of a network, but a time
stamp of the authority that the job names.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from PIL import Image
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_random_exponential

import framefleet
from framefleet.pipeline.errors import AuthorityError, JobError
from framefleet.pipeline.guards.redaction import public_url
from framefleet.pipeline.outputs.marks.label import IPTC_SPACE, SOURCE_TYPE
from framefleet.pipeline.outputs.marks.settings import ClipMarks, Provider, Signing
from framefleet.pipeline.outputs.marks.signing import key_of, leaf_of, read_pem

ASSERTION = "framefleet.clip"
# Thumbnails would be copies of what is in the file; manifests elsewhere and revocations are on networks.
SETTINGS = {
    "builder": {"thumbnail": {"enabled": False}},
    "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False},
}
_DC_SPACE = "http://purl.org/dc/elements/1.1/"
_MINED = ("ai_generative_training", "ai_training", "ai_inference", "data_mining")
# An authority that is out of reach is asked again for as long as a store; one of a job that begins is not.
_OUTAGE_S, _FIRST_ANSWER_S = 600.0, 10.0
_FORMATS = (  # of files that have a place for manifests
    (rb"\x89PNG\r\n\x1a\n", "image/png"),
    (rb"\xff\xd8\xff", "image/jpeg"),
    (rb"RIFF....WEBP", "image/webp"),
    (rb"GIF8", "image/gif"),
    (rb"II\*\0|MM\0\*", "image/tiff"),
    (rb"....ftyp(hei|mif1)", "image/heic"),
    (rb"....ftypavi", "image/avif"),
    (rb"....ftypM4A ", "audio/mp4"),
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

    def said(self) -> dict[str, Any]:
        """Return what records and manifests say of it."""
        return {"argument": self.argument, "sha256": self.sha256, **self.found}


def open_signing(signing: Signing) -> Signing:
    """Return how clips are signed, with its certificates read. certificate: given as a file on this machine.

    Raises JobError for a certificate that cannot be used; for a key that does not fit, if it is here.
    """
    if find_spec("c2pa") is None:
        raise JobError(
            f"{signing.where} needs c2pa-python", "pip install 'framefleet[c2pa]', on every machine"
        )
    chain = read_pem(f"{signing.where}.certificate", signing.certificate).decode("utf-8", "replace")
    opened = Signing(
        certificate=chain,
        private_key=signing.private_key,
        time_authority=signing.time_authority,
        where=signing.where,
    )
    leaf_of(opened)
    if Path(signing.private_key).exists():
        check_signing(opened)
    return opened


def check_signing(signing: Signing) -> None:
    """Sign one pixel. Raises JobError where this machine cannot sign as the job asks.

    Whether a certificate is one for content is known to c2pa alone.
    """
    import c2pa

    pixel = io.BytesIO()
    Image.new("RGB", (1, 1)).save(pixel, format="PNG")
    untimed = Signing(**{name: getattr(signing, name) for name in ("certificate", "private_key", "where")})
    try:
        _signed(pixel.getvalue(), "image/png", untimed, {})
    except c2pa.C2paError as error:
        raise JobError(
            f"{signing.where}.certificate does not sign content: {error}",
            "use one that C2PA's profile allows: not self-signed, for document signing or email protection, "
            "with those that issued it behind it",
        ) from None
    if signing.time_authority:
        try:
            _timed(pixel.getvalue(), "image/png", signing, {}, (), patience_s=_FIRST_ANSWER_S)
        except AuthorityError as error:
            raise JobError(error.problem, error.fix) from None


def sign(
    content: bytes,
    *,
    marks: ClipMarks,
    title: str,
    made: Mapping[str, str],
    inputs: Sequence[Ingredient] = (),
) -> bytes:
    """Return the file with a manifest in it. made: what it says of the clip, besides that a model made it.

    No two are equal: manifests have a name, a time and salts of their own. Raises AuthorityError where no
    time stamp is to be had.
    """
    assert marks.sign is not None
    mime_type = mime_type_of(content)
    assert mime_type is not None, "Media refuses formats without a place for manifests"
    manifest = _manifest(title, mime_type, marks, made, inputs)
    return _timed(content, mime_type, marks.sign, manifest, inputs, patience_s=_OUTAGE_S)


def mime_type_of(content: bytes) -> str | None:
    """Return the type of a file that has a place for manifests."""
    start = content[:16]
    return next((name for mark, name in _FORMATS if re.match(mark, start, re.DOTALL)), None)


def _timed(
    content: bytes,
    mime_type: str,
    signing: Signing,
    manifest: Mapping[str, Any],
    inputs: Sequence[Ingredient],
    *,
    patience_s: float,
) -> bytes:
    """Sign; ask an authority for the time again and again while it does not answer as it should."""
    import c2pa

    if signing.time_authority is None:
        return _signed(content, mime_type, signing, manifest, inputs)
    again = Retrying(
        retry=retry_if_exception_type(c2pa.C2paError.Signature),
        wait=wait_random_exponential(multiplier=0.2, max=5),
        stop=stop_after_delay(patience_s),
        reraise=True,
    )
    try:
        return again(_signed, content, mime_type, signing, manifest, inputs)
    except c2pa.C2paError.Signature as error:  # the key was tried before
        raise AuthorityError(
            f"{signing.where}.time_authority: {public_url(signing.time_authority)} gave no time stamp: "
            + str(error).replace(signing.time_authority, public_url(signing.time_authority)),
            "give the URL of an authority that answers RFC 3161 requests over http",
        ) from None


def _signed(
    content: bytes,
    mime_type: str,
    signing: Signing,
    manifest: Mapping[str, Any],
    inputs: Sequence[Ingredient] = (),
) -> bytes:
    import c2pa

    key, algorithm = key_of(signing)
    authority = signing.time_authority and signing.time_authority.encode()
    info = c2pa.C2paSignerInfo(algorithm.encode(), signing.certificate.encode(), key, authority)
    signed = io.BytesIO()
    with (
        c2pa.Signer.from_info(info) as signer,
        c2pa.Context(c2pa.Settings.from_dict(SETTINGS)) as context,
        c2pa.Builder(manifest or _manifest("", mime_type, ClipMarks(), {}, ()), context) as builder,
    ):
        for number, one in enumerate(inputs):
            if kind := mime_type_of(one.content):
                said = {"title": one.name, "relationship": "inputTo", "label": f"input{number}"}
                builder.add_ingredient(json.dumps(said), kind, io.BytesIO(one.content))
        builder.sign(signer, mime_type, io.BytesIO(content), signed)
    return signed.getvalue()


def _manifest(
    title: str, mime_type: str, marks: ClipMarks, made: Mapping[str, str], inputs: Sequence[Ingredient]
) -> dict[str, Any]:
    agent = {"name": "framefleet", "version": framefleet.__version__}
    system = _system(marks.provider) or agent
    created: dict[str, Any] = {
        "action": "c2pa.created",
        "digitalSourceType": SOURCE_TYPE,
        "softwareAgent": system,
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    kept = [f"input{number}" for number, one in enumerate(inputs) if mime_type_of(one.content)]
    created |= {"parameters": {"ingredientIds": kept}} if kept else {}
    clip: dict[str, Any] = dict(made)
    if marks.provider:
        said = {name: getattr(marks.provider, name) for name in ("name", "url", "system", "version")}
        clip["provider"] = {name: text for name, text in said.items() if text}
    if marks.watermarks:
        clip["watermarks"] = [one.name for one in marks.watermarks]
    if inputs:
        clip["inputs"] = [one.said() for one in inputs]
    assertions = [
        {"label": "c2pa.actions.v2", "data": {"actions": [created]}},
        {"label": ASSERTION, "data": clip},
    ]
    if marks.provider:
        assertions.append({"label": "cawg.metadata", "kind": "Json", "data": _metadata(marks.provider, made)})
    if marks.training:
        entries = {f"cawg.{name}": {"use": marks.training} for name in _MINED}
        assertions.append({"label": "cawg.training-mining", "data": {"entries": entries}})
    return {"claim_generator_info": [agent], "title": title, "format": mime_type, "assertions": assertions}


def _system(provider: Provider | None) -> dict[str, str]:
    if provider is None or provider.system is None:
        return {}
    return {"name": provider.system} | ({"version": provider.version} if provider.version else {})


def _metadata(provider: Provider, made: Mapping[str, str]) -> dict[str, Any]:
    """Return what IPTC's and Dublin Core's properties say, as JSON-LD."""
    found = {
        "@context": {"Iptc4xmpExt": IPTC_SPACE, "dc": _DC_SPACE},
        "Iptc4xmpExt:DigitalSourceType": SOURCE_TYPE,
        "Iptc4xmpExt:AISystemUsed": provider.system,
        "Iptc4xmpExt:AISystemVersionUsed": provider.version,
        "dc:identifier": made.get("row_id"),
        "dc:publisher": [provider.name],
        "dc:rights": made.get("license"),
    }
    return {name: value for name, value in found.items() if value}
