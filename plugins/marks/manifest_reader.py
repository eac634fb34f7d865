"""In: any file. Out: what its C2PA manifest says, and whether it and the file are what was signed."""

from __future__ import annotations

import io
import re
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from framefleet.pipeline.guards.json_text import parse_json
from framefleet.plugins.marks.manifest import ASSERTION, SETTINGS, mime_type_of

# What a reader reports where the file is not what was signed, and where only the signer is not known.
_CONTENT = re.compile(r"assertion\.(data|bmff|boxes|collection)Hash\.mismatch")
_STRANGER = re.compile(r"(signingCredential|timeStamp)\.(untrusted|ocsp.*)")

ManifestState = Literal["intact", "changed", "forged", "unreadable"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundManifest:
    """What a manifest says, and whether that holds.

    state: intact: it is what was signed, and so is the file. changed: the file is not. forged: the manifest
    is not. unreadable: damaged. is_trusted: whether one of the certificates asked about stands behind it.
    signer: whom its certificate names. signed_at: of an authority, where has_time says that its stamp holds.
    clip: what framefleet says of a clip. problems: codes of C2PA.
    """

    state: ManifestState
    is_trusted: bool = False
    signer: str = ""
    signed_at: str | None = None
    has_time: bool = False
    generator: str = ""
    source_type: str | None = None
    clip: Mapping[str, Any] = field(default_factory=dict)
    ingredients: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def is_sound(self) -> bool:
        """Whether it says what its signer signed."""
        return self.state in ("intact", "changed")


def read_manifest(
    content: bytes, *, own_sha256: str | None = None, anchors: str | None = None
) -> FoundManifest | None:
    """Return what the manifest of a file says; None where there is none, or no format that has one.

    own_sha256: of a certificate, and anchors: certificates in PEM of those who issue some, of which one is to
    stand behind it. anchors count for time stamps, too.
    """
    import c2pa

    mime_type = mime_type_of(content)
    if mime_type is None:
        return None
    trust: dict[str, Any] = {"user_anchors": anchors} if anchors else {}
    if own_sha256:
        own = b64encode(bytes.fromhex(own_sha256)).decode()
        anchor = {"trust_anchors": "", "allowed_list": own, "trust_uri": "urn:own", "trust_kind": "manifest"}
        trust["anchors"] = [anchor]
    try:
        with (
            c2pa.Context(c2pa.Settings.from_dict({**SETTINGS, "trust": trust})) as context,
            c2pa.Reader(mime_type, io.BytesIO(content), context=context) as reader,
        ):
            report = reader.json()
        return _manifest_of(_Report.model_validate(parse_json(report)))
    except c2pa.C2paError.ManifestNotFound:
        return None
    except c2pa.C2paError as error:
        return FoundManifest(state="unreadable", problems=(str(error),))
    except Exception as error:  # a report without what each has, or with other types: it may be anybody's
        return FoundManifest(
            state="unreadable", problems=(f"not as C2PA defines it: {type(error).__name__}",)
        )


class _Lenient(BaseModel):
    """What c2pa reports, as far as it is read here. What is in it may be anybody's."""

    model_config = ConfigDict(extra="ignore", strict=True)


class _Status(_Lenient):
    code: str = ""


class _Results(_Lenient):
    success: list[_Status] = []
    failure: list[_Status] = []


class _Validation(_Lenient):
    activeManifest: _Results  # as c2pa calls it


class _Assertion(_Lenient):
    label: str = ""
    data: Any = None


class _Signature(_Lenient):
    common_name: str | None = None
    issuer: str | None = None
    time: str | None = None


class _Generator(_Lenient):
    name: str | None = None
    version: str | None = None


class _Ingredient(_Lenient):
    title: str | None = None


class _Manifest(_Lenient):
    assertions: list[_Assertion] = []
    signature_info: _Signature | None = None
    claim_generator_info: list[_Generator] | None = None
    ingredients: list[_Ingredient] = []


class _Report(_Lenient):
    active_manifest: str
    manifests: dict[str, _Manifest]
    validation_results: _Validation


def _manifest_of(report: _Report) -> FoundManifest:
    """Return what c2pa's report says of the active manifest. Raises KeyError where there is none."""
    active = report.manifests[report.active_manifest]
    results = report.validation_results.activeManifest
    succeeded = {one.code for one in results.success}
    problems = {one.code for one in results.failure if not _STRANGER.fullmatch(one.code)}
    is_changed = bool(problems) and all(map(_CONTENT.fullmatch, problems))
    assertions = {one.label: one.data for one in active.assertions}
    signature = active.signature_info or _Signature()
    clip = assertions.get(ASSERTION)
    # How the file was made, as the first action says that says it.
    assertion = assertions.get("c2pa.actions.v2") or assertions.get("c2pa.actions")
    actions = assertion.get("actions") if isinstance(assertion, dict) else None
    listed = actions if isinstance(actions, list) else []
    types = (one.get("digitalSourceType") for one in listed if isinstance(one, dict))
    return FoundManifest(
        state="changed" if is_changed else "forged" if problems else "intact",
        is_trusted="signingCredential.trusted" in succeeded,
        signer=", ".join(name for name in (signature.common_name, signature.issuer) if name),
        signed_at=signature.time,
        has_time="timeStamp.validated" in succeeded,
        generator=" ".join(
            f"{one.name or ''} {one.version or ''}".strip() for one in active.claim_generator_info or []
        ),
        source_type=next((one for one in types if isinstance(one, str)), None),
        clip=clip if isinstance(clip, dict) else {},
        ingredients=tuple(one.title or "" for one in active.ingredients),
        problems=tuple(sorted(problems)),
    )
