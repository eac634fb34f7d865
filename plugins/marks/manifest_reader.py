"""Read the C2PA manifest of any file, and check whether manifest and file are as they were signed."""

from __future__ import annotations

import io
import re
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from framefleet.api.texts import parse_json
from framefleet.plugins.marks.manifest import ASSERTION, SETTINGS, mime_type_of

# Codes of c2pa for a changed file, and for an unknown signer.
_CONTENT = re.compile(r"assertion\.(data|bmff|boxes|collection)Hash\.mismatch")
_STRANGER = re.compile(r"(signingCredential|timeStamp)\.(untrusted|ocsp.*)")

# intact: manifest and file are as they were signed. changed: the file was changed. forged: the manifest was
# changed. unreadable: it is damaged.
ManifestState = Literal["intact", "changed", "forged", "unreadable"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundManifest:
    state: ManifestState
    is_trusted: bool = False  # whether it was signed with one of the given certificates
    signer: str = ""  # name in its certificate
    signed_at: str | None = None  # an authority's time, if has_time says that its stamp is valid
    has_time: bool = False
    generator: str = ""
    source_type: str | None = None
    clip: Mapping[str, Any] = field(default_factory=dict)  # framefleet's statements about the clip
    ingredients: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()  # codes of C2PA

    @property
    def is_sound(self) -> bool:
        """Whether the manifest is as it was signed."""
        return self.state in ("intact", "changed")


def read_manifest(
    content: bytes, *, own_sha256: str | None = None, anchors: str | None = None
) -> FoundManifest | None:
    """Return the manifest of a file; None if it has none, or its format cannot have one.

    own_sha256: of a certificate; anchors: certificates of issuers, in PEM. A manifest is trusted if one of
    these signed or issued it. anchors count for time stamps, too.
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
        return _manifest_of(parse_json(report))
    except c2pa.C2paError.ManifestNotFound:
        return None
    except c2pa.C2paError as error:
        return FoundManifest(state="unreadable", problems=(str(error),))
    except Exception as error:  # reports are not trusted, and may lack keys or have other types
        return FoundManifest(
            state="unreadable", problems=(f"not as C2PA defines it: {type(error).__name__}",)
        )


def _manifest_of(report: Any) -> FoundManifest:
    """Return the active manifest in c2pa's report. Raises if it is not as C2PA defines it."""
    active = report["manifests"][report["active_manifest"]]
    results = report["validation_results"]["activeManifest"]
    succeeded = {_text(one, "code") for one in results.get("success", ())}
    failed = {_text(one, "code") for one in results.get("failure", ())}
    problems = {code for code in failed if not _STRANGER.fullmatch(code)}
    is_changed = bool(problems) and all(map(_CONTENT.fullmatch, problems))
    assertions = {_text(one, "label"): one.get("data") for one in active.get("assertions", ())}
    signature = active.get("signature_info") or {}
    generators = active.get("claim_generator_info") or ()
    clip = assertions.get(ASSERTION)
    # How the file was made, from the first action that says so.
    assertion = assertions.get("c2pa.actions.v2") or assertions.get("c2pa.actions")
    actions = assertion.get("actions") if isinstance(assertion, dict) else None
    listed = actions if isinstance(actions, list) else []
    types = (one.get("digitalSourceType") for one in listed if isinstance(one, dict))
    return FoundManifest(
        state="changed" if is_changed else "forged" if problems else "intact",
        is_trusted="signingCredential.trusted" in succeeded,
        signer=", ".join(filter(None, (_text(signature, name) for name in ("common_name", "issuer")))),
        signed_at=_text(signature, "time") or None,
        has_time="timeStamp.validated" in succeeded,
        generator=" ".join(f"{_text(one, 'name')} {_text(one, 'version')}".strip() for one in generators),
        source_type=next((one for one in types if isinstance(one, str)), None),
        clip=clip if isinstance(clip, dict) else {},
        ingredients=tuple(_text(one, "title") for one in active.get("ingredients", ())),
        problems=tuple(sorted(problems)),
    )


def _text(values: Any, name: str) -> str:
    """Return text from the report, or "" if it is missing. Raises TypeError for other types."""
    text = values.get(name)
    if text is not None and not isinstance(text, str):
        raise TypeError(name)
    return text or ""
