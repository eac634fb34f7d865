"""Signed clips: what manifests say, of what rows started from too, and keys that do not fit."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
from dataclasses import replace
from pathlib import Path
from queue import Queue
from typing import Any
from unittest import mock

import c2pa
import numpy as np
import pytest

import framefleet
from framefleet import AuthorityError, Batching, Inputs, JobError, Request, Store
from framefleet.api.clips import Audio, FileStep, StepInput, decode
from framefleet.cluster.worker.messages import Failed, StoredRow, WorkerSetup
from framefleet.cluster.worker.queues import Writers
from framefleet.pipeline.model.model import ModelSettings
from framefleet.pipeline.outputs.encode_clip import encode_clip, encode_input
from framefleet.pipeline.outputs.frames.frames import to_pixels
from framefleet.pipeline.outputs.media.media_settings import SOUNDS, Media, MediaFormat
from framefleet.plugins.marks import manifest
from framefleet.plugins.marks.manifest import (
    Ingredient,
    certificate_sha256,
    check_signing,
    mime_type_of,
    open_signing,
    sign,
)
from framefleet.plugins.marks.manifest_reader import read_manifest
from framefleet.plugins.marks.settings import SIGNED, ClipMarks, Provider, Signing, Watermark
from framefleet.plugins.marks.step import MarkStep
from tests.certificates import issue, time_authority
from tests.unit.test_encode_clip import CLIP, FRAMES
from tests.unit.test_watermark import scene

STILL = replace(CLIP, pixels=to_pixels(FRAMES[:1]))
SOUND = replace(CLIP, pixels=None, audio=Audio(samples=np.zeros((1, 800), np.float32), sample_rate=8000))
PROVIDER = Provider(name="Example", url="https://example.org", system="Painter", version="2.1")


@pytest.fixture
def signing(tmp_path: Path) -> Signing:
    certificate, key = issue(tmp_path)
    return opened(certificate, key)


def opened(certificate: Path, key: Path, **others: str) -> Signing:
    return open_signing(Signing(certificate=str(certificate), private_key=str(key), **others))


def signed_by(signing: Signing, format: MediaFormat = "png", **others: Any) -> tuple[Media, list[FileStep]]:
    return Media(format=format), [MarkStep(marks=ClipMarks(sign=signing, **others))]


def said_of(of: StepInput, steps: list[FileStep]) -> dict[str, Any]:
    """Return what the record says of the marks of a clip."""
    encode_input(of, steps)
    return json.loads(str(of.values["marks"]))


def _read(content: bytes, anchors: str | None = None) -> dict[str, Any]:
    trust = {"trust": {"user_anchors": anchors}} if anchors else {}
    with (
        c2pa.Context(c2pa.Settings.from_dict(trust)) as context,
        c2pa.Reader(mime_type_of(content), io.BytesIO(content), context=context) as reader,
    ):
        found: dict[str, Any] = json.loads(reader.json())
        return found | {"state": reader.get_validation_state()}


def _said(found: dict[str, Any]) -> dict[str, Any]:
    manifest = found["manifests"][found["active_manifest"]]
    return {one["label"]: one["data"] for one in manifest["assertions"]} | {"manifest": manifest}


@pytest.mark.parametrize("format", SIGNED)
def test_every_format_is_signed_and_a_change_is_found_out(signing: Signing, format: MediaFormat) -> None:
    clip = SOUND if format in SOUNDS else STILL
    content = bytearray(encode_clip(clip, *signed_by(signing, format)).content)
    found = _read(bytes(content))
    # Only that the certificate is of no public list is found amiss.
    assert {one["code"] for one in found.get("validation_status", [])} <= {"signingCredential.untrusted"}
    assert _said(found)["framefleet.clip"] == {
        "row_id": CLIP.row_id,
        "model": CLIP.model,
        "model_digest": "m",
    }
    at = {"webp": 100, "wav": 100, "gif": -2, "flac": -2}.get(format, -200)
    content[at] ^= 1  # in what is seen or heard; manifests stand before it, in webp and wav behind
    changed = read_manifest(bytes(content))
    assert changed is not None
    assert changed.state == "changed", changed.problems


def test_a_manifest_says_who_made_the_clip_and_with_what(signing: Signing) -> None:
    watermarks = (Watermark(name="spread"),)
    marks = signed_by(signing, provider=PROVIDER, training="notAllowed", watermarks=watermarks)
    said = _said(_read(encode_clip(replace(STILL, license="apache-2.0"), *marks).content))
    [action] = said["c2pa.actions.v2"]["actions"]
    assert action["action"] == "c2pa.created"
    assert action["digitalSourceType"].endswith("/trainedAlgorithmicMedia")
    assert action["softwareAgent"] == {"name": "Painter", "version": "2.1"}
    assert action["when"]
    clip = said["framefleet.clip"]
    assert (clip["row_id"], clip["license"], clip["watermarks"]) == (CLIP.row_id, "apache-2.0", ["spread"])
    assert clip["provider"]["name"] == "Example"
    metadata = said["cawg.metadata"]
    assert metadata["Iptc4xmpExt:AISystemUsed"] == "Painter"
    assert metadata["dc:identifier"] == CLIP.row_id
    assert {one["use"] for one in said["cawg.training-mining"]["entries"].values()} == {"notAllowed"}
    [generator] = said["manifest"]["claim_generator_info"]
    assert (generator["name"], generator["version"]) == ("framefleet", framefleet.__version__)


def test_a_time_stamp_and_the_trust_of_a_list_are_checked_by_c2pa_itself(tmp_path: Path) -> None:
    certificate, key = issue(tmp_path)
    root = "-----BEGIN" + certificate.read_text().split("-----BEGIN")[2]
    (folder := tmp_path / "time").mkdir()
    with time_authority(folder) as authority:
        signing = opened(certificate, key, time_authority=authority.url)
        content = encode_clip(STILL, *signed_by(signing)).content
        assert authority.num_asked == 2  # once for the pixel that is tried
        found = _read(content, root + authority.root)
        codes = {one["code"] for one in found["validation_results"]["activeManifest"]["success"]}
        assert (found["state"], {"timeStamp.validated", "timeStamp.trusted"} <= codes) == ("Trusted", True)
        authority.is_down = True
        with pytest.raises(AuthorityError, match="503"):
            plain = encode_clip(STILL, Media(format="png")).content
            sign(plain, marks=ClipMarks(sign=signing), title="", made={}, patience_s=0.1)
        with (
            mock.patch.object(manifest, "_FIRST_ANSWER_S", 0.1),
            pytest.raises(AuthorityError, match="no time stamp"),
        ):
            check_signing(signing)
    read = read_manifest(content, own_sha256=certificate_sha256(signing))
    assert read is not None
    assert (read.is_trusted, read.has_time, bool(read.signed_at)) == (True, True, True)
    assert read_manifest(content, own_sha256="0" * 64) == replace(read, is_trusted=False)


def test_what_a_row_started_from_is_an_ingredient_with_its_manifest(tmp_path: Path, signing: Signing) -> None:
    other = opened(*issue(tmp_path, name="other"))
    parent = encode_clip(replace(STILL, row_id="cd" * 16), *signed_by(other)).content
    given = Ingredient(
        argument="image", name="start.png", sha256="0" * 64, content=parent, found={"label": {"aigc": {}}}
    )
    plain = replace(given, argument="video", name="film.bin", content=b"no format of C2PA's")
    media, steps = signed_by(signing)
    of = StepInput(clip=STILL, media=media, notes={MarkStep: (given, plain)})
    encoded = encode_input(of, steps)
    found = _read(encoded.content)
    said = _said(found)
    [ingredient] = said["manifest"]["ingredients"]
    assert (ingredient["title"], ingredient["relationship"]) == ("start.png", "inputTo")
    assert ingredient["active_manifest"] in found["manifests"]  # the parent's own is kept
    assert [one["argument"] for one in said["framefleet.clip"]["inputs"]] == ["image", "video"]
    assert {one["code"] for one in found["validation_status"]} <= {"signingCredential.untrusted"}
    assert said_of(of, steps)["inputs"][0]["label"] == {"aigc": {}}


def test_an_altered_manifest_is_forged_and_a_damaged_one_unreadable(signing: Signing) -> None:
    content = encode_clip(STILL, *signed_by(signing)).content
    at = content.find(CLIP.row_id.encode())
    found = read_manifest(content[:at] + b"cd" + content[at + 2 :])
    assert found is not None
    assert found.state == "forged"
    at = content.find(b"c2pa.claim")
    broken = read_manifest(content[: at - 30] + bytes(60) + content[at + 30 :])
    assert broken is not None
    assert broken.state in ("unreadable", "forged")
    assert read_manifest(encode_clip(STILL, Media(format="png")).content) is None
    assert read_manifest(b"no file of any format") is None


def test_a_signature_changes_the_file_and_no_frame(signing: Signing) -> None:
    for format in ("mp4", "png", "webp"):
        media = Media(format=format)
        plain, signed = encode_clip(STILL, media), encode_clip(STILL, *signed_by(signing, format))
        again = encode_clip(STILL, *signed_by(signing, format))
        assert np.array_equal(decode(signed.content), decode(plain.content))
        assert signed.record.frames_sha256 == plain.record.frames_sha256
        assert signed.record.media_sha256 != again.record.media_sha256
        assert (plain.record.media_encoder, signed.record.media_encoder) == (None, "c2pa")
        of = StepInput(clip=STILL, media=media)
        assert said_of(of, signed_by(signing)[1]) == {"c2pa": certificate_sha256(signing)}


def test_the_key_does_not_travel(signing: Signing) -> None:
    key = Path(signing.private_key).read_bytes()
    check_signing(signing)
    assert key.splitlines()[1] not in pickle.dumps(signed_by(signing))
    assert len(certificate_sha256(signing)) == 64


def test_a_format_without_a_place_for_manifests_is_refused(signing: Signing) -> None:
    with pytest.raises(JobError, match=r"marks.sign signs mp4, png, .* but media.format is mkv"):
        (media, [step]) = signed_by(signing, "mkv")
        step.check(media)


def test_a_key_or_certificate_that_does_not_fit_is_reported(tmp_path: Path) -> None:
    certificate, key = issue(tmp_path)
    _, others = issue(tmp_path, name="other")
    old, old_key = issue(tmp_path, name="old", days=-1)
    own, own_key = issue(tmp_path, name="own", is_self_signed=True)
    for (first, second), said in {
        (own, own_key): "cannot sign content",
        (certificate, others): "is not the key of marks.sign.certificate",
        (certificate, certificate): "is not a private key in PEM",
        (key, key): "marks.sign.certificate is not a certificate in PEM",
        (old, old_key): "but not now",
        (tmp_path / "none", key): "cannot be read on",
        (certificate, tmp_path / "elsewhere"): r"marks.sign.private_key: .*elsewhere cannot be read on",
    }.items():
        with pytest.raises(JobError, match=said) as caught:
            check_signing(opened(first, second))
        assert caught.value.fix
        assert "PRIVATE" not in str(caught.value)


PARENT = "cd" * 16


def marked_picture(folder: Path) -> bytes:
    """Return a picture that another job made, with every mark."""
    certificate, key = issue(folder, name="parent")
    signing = open_signing(Signing(certificate=str(certificate), private_key=str(key)))
    marks = ClipMarks(
        sign=signing, provider=Provider(name="Parents"), watermarks=(Watermark(name="spread"),), label=True
    )
    clip = replace(CLIP, row_id=PARENT, pixels=to_pixels(scene(1)))
    return encode_clip(clip, Media(format="png"), [MarkStep(marks=marks)]).content


def stored(folder: Path, marks: ClipMarks, *, sha256: str, uri: str) -> StoredRow | Failed:
    setup = WorkerSetup(
        model=ModelSettings(path="none"),
        batching=Batching(),
        media=Media(format="png"),
        steps={"marks": MarkStep(marks=marks)} if marks else {},
        store=Store(str(folder / "out")),
        recipes={},
        inputs=Inputs([str(folder)]),
    )
    news: Queue[StoredRow | Failed] = Queue()
    writers = Writers(setup, news.put)
    writers.start()
    request = Request(arguments={"prompt": "x", "image": {"uri": uri, "sha256": sha256}})
    pixels = to_pixels(np.zeros((1, 16, 16, 3), np.uint8))
    writers.put(replace(CLIP, model_digest="0" * 64, request=request, pixels=pixels), attempt=1)
    return news.get(timeout=60)


def test_marks_of_a_picture_are_in_the_record_and_its_manifest_in_the_clip(tmp_path: Path) -> None:
    (picture := tmp_path / "start.png").write_bytes(content := marked_picture(tmp_path))
    certificate, key = issue(tmp_path)
    signing = open_signing(Signing(certificate=str(certificate), private_key=str(key)))
    sha256 = hashlib.sha256(content).hexdigest()
    news = stored(tmp_path, ClipMarks(sign=signing), sha256=sha256, uri=str(picture))
    assert isinstance(news, StoredRow), news
    [said] = json.loads(str(news.added.values["marks"]))["inputs"]
    assert (said["argument"], said["sha256"], said["c2pa"]["state"]) == ("image", sha256, "intact")
    assert said["c2pa"]["source_type"].endswith("trainedAlgorithmicMedia")
    assert said["label"]["aigc"]["ContentProducer"] == "Parents"
    assert said["watermarks"] == [{"name": "spread", "row_id": PARENT[:12]}]
    found = read_manifest((tmp_path / "out" / (news.record.path or "")).read_bytes())
    assert found is not None
    assert (found.state, found.ingredients) == ("intact", ("start.png",))
    assert found.clip["inputs"] == [said]
    # A file that has changed fails the row, unless its marks are not read.
    plain = stored(tmp_path, ClipMarks(), sha256="0" * 64, uri=str(picture))
    assert isinstance(plain, StoredRow) and plain.added.values == {}
    labelled = ClipMarks(label=True, provider=Provider(name="Example"))
    failed = stored(tmp_path, labelled, sha256="0" * 64, uri=str(picture))
    assert isinstance(failed, Failed) and "the file has changed since the row was checked" in failed.message
