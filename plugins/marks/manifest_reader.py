"""In: any file. Out: what its C2PA manifest says, and whether it and the file are what was signed."""

from __future__ import annotations

import io
import re
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from framefleet.api.texts import parse_json
from framefleet.plugins.marks.manifest import ASSERTION, SETTINGS, mime_type_of

# What a reader reports where the file is not what was signed, and where only the signer is not known.
_CONTENT = re.compile(r"assertion\.(data|bmff|boxes|collection)Hash\.mismatch")
_STRANGER = re.compile(r"(signingCredential|timeStamp)\.(untrusted|ocsp.*)")

# intact: it is what was signed, and so is the file. changed: the file is not. forged: the manifest is not.
# unreadable: damaged.
ManifestState = Literal["intact", "changed", "forged", "unreadable"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundManifest:
    state: ManifestState
    is_trusted: bool = False  # whether one of the certificates asked about stands behind it
    signer: str = ""  # whom its certificate names
    signed_at: str | None = None  # of an authority, where has_time says that its stamp holds
    has_time: bool = False
    generator: str = ""
    source_type: str | None = None
    clip: Mapping[str, Any] = field(default_factory=dict)  # what framefleet says of a clip
    ingredients: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()  # codes of C2PA

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
        return _manifest_of(parse_json(report))
    except c2pa.C2paError.ManifestNotFound:
        return None
    except c2pa.C2paError as error:
        return FoundManifest(state="unreadable", problems=(str(error),))
    except Exception as error:  # a report without what each has, or with other types: it may be anybody's
        return FoundManifest(
            state="unreadable", problems=(f"not as C2PA defines it: {type(error).__name__}",)
        )


def _manifest_of(report: Any) -> FoundManifest:
    """Return what c2pa's report says of the active manifest. Raises where it is not as C2PA defines it."""
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
    # How the file was made, as the first action says that says it.
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
    """Return a text of the report; "" where it has none. Raises TypeError for anything else."""
    text = values.get(name)
    if text is not None and not isinstance(text, str):
        raise TypeError(name)
    return text or ""
