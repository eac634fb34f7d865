"""Signed clips: what their manifests say, that anybody can check them, and keys that do not fit."""

from __future__ import annotations

import io
import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import c2pa
import numpy as np
import pytest

import framefleet
from framefleet.pipeline.errors import JobError
from framefleet.pipeline.outputs.encode_clip import encode_clip
from framefleet.pipeline.outputs.frames.pixels import to_pixels
from framefleet.pipeline.outputs.media.media import decode
from framefleet.pipeline.outputs.media.media_settings import SIGNED, Media, MediaFormat, Signing
from framefleet.pipeline.outputs.media.provenance import (
    MIME_TYPES,
    certificate_sha256,
    check_signing,
    open_signing,
)
from tests.certificates import issue
from tests.unit.test_encode_clip import CLIP, FRAMES

STILL = replace(CLIP, pixels=to_pixels(FRAMES[:1]))


@pytest.fixture
def signing(tmp_path: Path) -> Signing:
    certificate, key = issue(tmp_path)
    return open_signing(str(certificate), str(key))


def _read(content: bytes, format: MediaFormat) -> dict[str, Any]:
    with c2pa.Reader(MIME_TYPES[format], io.BytesIO(content)) as reader:
        told: dict[str, Any] = json.loads(reader.json())
        return told


@pytest.mark.parametrize("format", SIGNED)
def test_a_signed_clip_says_what_made_it(signing: Signing, format: MediaFormat) -> None:
    signed = encode_clip(STILL, Media(format=format, c2pa=signing))
    told = _read(signed.content, format)
    # Only that the certificate is of no public list is found amiss.
    assert {one["code"] for one in told.get("validation_status", [])} <= {"signingCredential.untrusted"}
    manifest = told["manifests"][told["active_manifest"]]
    said = {one["label"]: one["data"] for one in manifest["assertions"]}
    [action] = said["c2pa.actions.v2"]["actions"]
    assert action["action"] == "c2pa.created"
    assert action["digitalSourceType"].endswith("/trainedAlgorithmicMedia")
    assert said["framefleet.clip"] == {"row_id": CLIP.row_id, "model": CLIP.model, "model_digest": "m"}
    [generator] = manifest["claim_generator_info"]
    assert (generator["name"], generator["version"]) == ("framefleet", framefleet.__version__)
    assert manifest["signature_info"]["alg"] == "Es256"


@pytest.mark.parametrize("format", SIGNED)
def test_a_changed_clip_is_found_out(signing: Signing, format: MediaFormat) -> None:
    content = bytearray(encode_clip(STILL, Media(format=format, c2pa=signing)).content)
    content[-200] ^= 1  # in the pictures or behind them: manifests stand before
    assert "dataHash.mismatch" in json.dumps(_read(bytes(content), format)).replace("bmffHash", "dataHash")


@pytest.mark.parametrize("format", SIGNED)
def test_a_signature_changes_the_file_and_no_frame(signing: Signing, format: MediaFormat) -> None:
    media = Media(format=format)
    plain, signed = encode_clip(STILL, media), encode_clip(STILL, replace(media, c2pa=signing))
    again = encode_clip(STILL, replace(media, c2pa=signing))
    assert np.array_equal(decode(signed.content), decode(plain.content))
    assert signed.record.frames_sha256 == plain.record.frames_sha256
    assert signed.record.media_sha256 != again.record.media_sha256
    assert (plain.record.media_encoder, signed.record.media_encoder) == (None, "c2pa")


def test_the_key_does_not_travel(signing: Signing) -> None:
    key = Path(signing.private_key).read_bytes()
    check_signing(Media(c2pa=signing))
    assert key.splitlines()[1] not in pickle.dumps(Media(c2pa=signing))
    assert len(certificate_sha256(signing)) == 64


def test_another_format_is_refused(signing: Signing) -> None:
    with pytest.raises(JobError, match=r"media.c2pa signs mp4 and png, and media.format is mkv"):
        Media(format="mkv", c2pa=signing)


def test_a_key_or_certificate_that_does_not_fit_is_told(tmp_path: Path) -> None:
    certificate, key = issue(tmp_path)
    _, others = issue(tmp_path, name="other")
    old, old_key = issue(tmp_path, name="old", days=-1)
    own, own_key = issue(tmp_path, name="own", is_self_signed=True)
    for (first, second), said in {
        (own, own_key): "does not sign content",
        (certificate, others): "is not the key of media.c2pa.certificate",
        (certificate, certificate): "is not a private key in PEM",
        (key, key): "media.c2pa.certificate is not a certificate in PEM",
        (old, old_key): "which is not now",
        (tmp_path / "none", key): "cannot be read on",
    }.items():
        with pytest.raises(JobError, match=said) as caught:
            open_signing(str(first), str(second))
        assert caught.value.fix
        assert "PRIVATE" not in str(caught.value)


def test_a_machine_without_the_key_is_told_by_its_name(tmp_path: Path) -> None:
    certificate, _ = issue(tmp_path)
    signing = open_signing(str(certificate), str(tmp_path / "elsewhere"))
    with pytest.raises(JobError, match=r"private_key: .*elsewhere cannot be read on"):
        check_signing(Media(c2pa=signing))
