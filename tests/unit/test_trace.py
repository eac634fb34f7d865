"""Any file to its row: by digest, by signed manifest, by watermark, by unsigned tags, in this order."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

import framefleet
from framefleet import Clip, JobError, Output, Traced, open_output
from framefleet.api.clips import Media, decode, encode
from framefleet.pipeline.outputs.encode_clip import encode_clip
from framefleet.pipeline.outputs.frames.frames import Frames, to_pixels
from framefleet.pipeline.outputs.parts.records import record_schema, values_of
from framefleet.plugins.marks.manifest import open_signing
from framefleet.plugins.marks.manifest_reader import read_manifest
from framefleet.plugins.marks.settings import ClipMarks, Provider, Signing, Watermark
from framefleet.plugins.marks.step import MarkStep
from framefleet.plugins.marks.trace import Wanted, look_up
from tests import outputs
from tests.certificates import issue
from tests.commands import command
from tests.gallery_output import clip_of, write_output
from tests.outputs import write_part
from tests.rows import record
from tests.unit.test_watermark import resized, scene

ROWS = [{"prompt": f"a red ball {number}", "seed": number} for number in range(3)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Marked:
    """An output whose clips carry every mark. clips: their files, by number."""

    output: Path
    step: MarkStep
    clips: list[Path]
    folder: Path

    def trace(self, content: bytes | None = None, name: str = "found.mp4", **given: str) -> Traced:
        path = self.clips[1]
        if content is not None:
            path = self.folder / name
            path.write_bytes(content)
        [found] = framefleet.trace(path, outputs=self.output, **given)
        return found


def signing(folder: Path, name: str) -> Signing:
    certificate, key = issue(folder, name=name)
    return open_signing(Signing(certificate=str(certificate), private_key=str(key)))


def moving(clip: Clip) -> Clip:
    """Return a clip with its own picture, large enough for a watermark."""
    frames = np.roll(scene(9), 40 * int(clip.row_id[:8], 16), axis=2)
    return replace(clip, row_id=ids(int(clip.row_id, 16)), pixels=to_pixels(frames))


def ids(number: int) -> str:
    return f"{number + 1:08x}{'ab' * 12}"


@pytest.fixture(scope="module")
def marked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Marked]:
    folder = tmp_path_factory.mktemp("marked")
    marks = ClipMarks(
        sign=signing(folder, "signer"),
        provider=Provider(name="Example"),
        watermarks=(Watermark(name="spread"),),
        label=True,
    )
    step = MarkStep(marks=marks)
    write_output(folder / "out", ROWS, steps={"marks": step}, change=moving)
    records = [record for table in open_output(str(folder / "out")).records() for record in table.to_pylist()]
    clips = [folder / "out" / record["path"] for record in records]
    yield Marked(output=folder / "out", step=step, clips=clips, folder=folder)


def again(frames: Frames, **tags: str) -> bytes:
    return encode(frames, media=Media(crf=23), fps=8, metadata=tags)


def state_of(found: Traced) -> str:
    """Return what became of the manifest of a file."""
    assert found.marks is not None and found.marks.manifest is not None
    return found.marks.manifest.state


def test_a_stored_clip_is_found_by_its_digest_with_all_of_its_marks(marked: Marked) -> None:
    found = marked.trace()
    assert (found.found_by, found.row_id, found.signer, found.changes) == ("digest", ids(1), "own", ())
    assert found.record is not None
    assert json.loads(found.record["arguments"])["prompt"] == "a red ball 1"
    assert state_of(found) == "intact" and found.marks is not None
    assert [one.prefix for one in found.marks.watermarks] == [ids(1)[:12]]
    assert found.marks.label is not None


def test_a_signed_file_that_was_changed_is_found_by_its_manifest(marked: Marked) -> None:
    content = bytearray(marked.clips[1].read_bytes())
    content[-1000] ^= 1  # in the frames
    found = marked.trace(bytes(content))
    assert (found.found_by, found.row_id, found.signer) == ("manifest", ids(1), "own")
    assert state_of(found) == "changed"


def test_a_stripped_file_is_found_by_its_watermark_and_it_is_said_what_was_done(marked: Marked) -> None:
    frames = decode(marked.clips[1].read_bytes())
    for name, content, said in (
        ("half.mp4", again(resized(frames, 0.5)), "scaled to 50%"),
        ("part.mp4", again(frames[:3]), "3 frames instead of 9"),
        ("crop.mp4", again(frames[:, 16:-16, 32:-32]), "cropped to 88% of the height and 86% of the width"),
        ("shot.png", as_png(frames[4]), "written as png instead of mp4"),
        ("rate.mp4", encode(frames, media=Media(crf=20), fps=12, metadata={}), "12 fps instead of 8"),
    ):
        found = marked.trace(content, name)
        assert (found.found_by, found.row_id, found.signer) == ("watermark", ids(1), None), name
        assert {said, "the signed manifest was removed", "the label was removed"} <= {*found.changes}, name


@pytest.mark.parametrize(
    ("times", "said"), [(1, "copied or encoded again"), (4, "another file, whose content was not compared")]
)
def test_a_copy_is_not_said_to_be_encoded_again_and_many_frames_are_not_called_equal_unseen(
    times: int, said: str, tmp_path: Path
) -> None:
    frames = to_pixels(np.concatenate([scene(9)] * times))
    store = write_output(tmp_path / "out", ROWS[:1], change=lambda clip: replace(clip, pixels=frames))
    (path,) = store.list("clips")
    (copy := tmp_path / "copy.mp4").write_bytes(store.read(path) + b"\0\0\0\x08free")
    [found] = framefleet.trace(copy, outputs=tmp_path / "out")
    assert (found.found_by, found.changes) == ("tags", (said,))


def as_png(frame: Frames) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, "PNG")
    return buffer.getvalue()


def test_a_forged_manifest_and_a_foreign_signature_do_not_count(marked: Marked, tmp_path: Path) -> None:
    content = marked.clips[1].read_bytes()
    at = content.find(ids(1).encode())
    forged = marked.trace(content[:at] + ids(2).encode() + content[at + 32 :])
    assert (state_of(forged), forged.signer) == ("forged", None)
    assert (forged.found_by, forged.row_id) == ("watermark", ids(1))
    # Somebody else signs a picture of theirs as one of our rows.
    theirs = MarkStep(marks=ClipMarks(sign=signing(tmp_path, "stranger")))
    clip = replace(clip_of(2, {}, seed=2), row_id=ids(2))
    foreign = marked.trace(encode_clip(clip, Media(), [theirs]).content)
    assert (state_of(foreign), foreign.signer) == ("intact", "foreign")
    assert foreign.found_by == "tags"  # which anybody can write


def test_a_record_may_name_anything_as_its_certificate(tmp_path: Path) -> None:
    named, store = record(1), outputs.write_output(tmp_path)
    schema = record_schema(pa.schema([("marks", pa.string())]))
    write_part(store, "records", schema, [values_of(named) | {"marks": '{"c2pa": "x"}'}], "r1")
    (found,) = look_up([Output(store)], Wanted(row_ids={named.row_id}))
    assert found.certificate is None


def test_the_second_file_of_a_row_is_found_by_its_digest(marked: Marked, tmp_path: Path) -> None:
    (file := tmp_path / "derived.mp4").write_bytes(again(scene(2)))
    digest = sha256(file.read_bytes()).hexdigest()
    of_second = {"derived_path": f"derived/{ids(1)}.mp4", "derived_sha256": digest}
    outputs.write_output(tmp_path / "out", [record(1, **of_second)])
    [found] = framefleet.trace(file, outputs=tmp_path / "out")
    assert (found.found_by, found.changes) == ("digest", ())


def test_files_of_others_are_looked_at_too(marked: Marked, tmp_path: Path) -> None:
    certificate, key = issue(tmp_path, name="camera")
    theirs = open_signing(Signing(certificate=str(certificate), private_key=str(key)))
    clip = replace(clip_of(7, {}, seed=7), row_id="ee" * 16)
    content = encode_clip(clip, Media(), [MarkStep(marks=ClipMarks(sign=theirs))]).content
    (root := tmp_path / "root.pem").write_text("-----BEGIN" + certificate.read_text().split("-----BEGIN")[2])
    assert marked.trace(content).signer == "unknown"
    assert marked.trace(content, trust=str(root)).signer == "trusted"
    assert marked.trace(again(scene(2)), "b.mp4").found_by is None


def test_without_outputs_the_marks_alone_name_the_row(marked: Marked) -> None:
    frames = decode(marked.clips[1].read_bytes())
    (path := marked.folder / "bare.mp4").write_bytes(again(frames))
    [found] = framefleet.trace(path)
    assert (found.found_by, found.row_id, found.record) == ("watermark", ids(1)[:12], None)
    [found] = framefleet.trace(marked.clips[1])
    assert (found.found_by, found.row_id, found.signer) == ("manifest", ids(1), "unknown")
    path.write_bytes(again(scene(2), row_id=ids(1)))
    [found] = framefleet.trace(path)
    assert (found.found_by, found.row_id) == ("tags", ids(1))


def test_a_folder_is_traced_in_one_pass_and_outputs_may_be_listed(marked: Marked, tmp_path: Path) -> None:
    (listing := tmp_path / "outputs.txt").write_text(f"\ufeff{marked.output}\r\n\r\n", "utf-8")
    ended = command("trace", marked.output / "clips", "--output", listing, "--json", exits=0)
    found = [json.loads(line) for line in ended.stdout.splitlines()]
    assert [one["row_id"] for one in found] == sorted(map(ids, range(3)))
    assert {one["found_by"] for one in found} == {"digest"}
    (other := tmp_path / "other").mkdir()
    (other / "a.png").write_bytes(as_png(scene(1)[0]))
    (other / "notes.txt").write_text("no picture")
    ended = command("trace", other, "--output", marked.output)
    assert (ended.exit_code, "not found" in ended.stdout, "no marks" in ended.stdout) == (1, True, True)
    assert "1 file: 0 found" in ended.stderr


def test_what_is_printed_cannot_be_forged_by_a_file(marked: Marked) -> None:
    content = again(
        scene(2), row_id=ids(1), aigc='{"Label":"1","ContentProducer":"x\\nrow: 1","ProduceID":"\x1b[1m"}'
    )
    (path := marked.folder / "evil\n.mp4").write_bytes(content)
    ended = command("trace", path)
    assert all(line.startswith((str(marked.folder), "  ")) for line in ended.stdout.splitlines())
    assert "\x1b" not in ended.stdout


def test_bad_input_is_refused_with_a_fix(marked: Marked, tmp_path: Path) -> None:
    lists = {
        name: tmp_path / f"{number}.txt"
        for number, name in enumerate(
            ("http://a:b@c/d", "ftp://c/d", "simplecache::s3://c/d", "github://c:d@e/")
        )
    }
    for place, file in lists.items():
        file.write_text(f"{marked.output}\n{place}\n")
    for arguments, said in (
        *(((marked.clips[0], "--output", file), f"line 2 of {file} is") for file in lists.values()),
        ((tmp_path / "none.mp4",), "does not exist"),
        ((marked.clips[0], "--output", tmp_path), "is not an output"),
        ((marked.clips[0], "--output", marked.clips[0]), "neither an output nor a text file that lists"),
        ((marked.clips[0], "--trust", tmp_path / "none"), "--trust: "),
        ((marked.clips[0], "--watermark", "spraed=x"), "this watermark does not exist"),
    ):
        assert said in command("trace", *arguments, exits=2).stderr
    with pytest.raises(JobError):
        framefleet.trace(marked.clips[0], watermarks={"nothing": "x"})
    with pytest.raises(JobError, match="contains no image, video or sound"):
        framefleet.trace(tmp_path)


ODD = [None, 5, [], {"actions": 5}, {"actions": [5, {"digitalSourceType": []}]}]


def report_of(assertions: Any, results: Any) -> dict[str, Any]:
    manifests = {"a": {"assertions": assertions}}
    return {"active_manifest": "a", "manifests": manifests, "validation_results": results}


@pytest.mark.parametrize(
    ("report", "state"),
    [
        *((report, "unreadable") for report in ({}, [], 5, {"manifests": {}})),
        ({"active_manifest": "a", "manifests": {"a": {}}}, "unreadable"),
        ({"active_manifest": ["a"], "manifests": None}, "unreadable"),
        (report_of([{"label": 5}], {}), "unreadable"),
        (report_of([], {"activeManifest": []}), "unreadable"),
        *(
            (report_of([{"label": "c2pa.actions", "data": one}], {"activeManifest": {}}), "intact")
            for one in ODD
        ),
    ],
)
def test_a_report_may_have_any_shape(
    marked: Marked, monkeypatch: pytest.MonkeyPatch, report: object, state: str
) -> None:
    monkeypatch.setattr("c2pa.Reader.json", lambda self: json.dumps(report))
    manifest = read_manifest(marked.clips[1].read_bytes())
    assert manifest is not None and (manifest.state, manifest.source_type) == (state, None)
    assert not manifest.is_trusted


def test_pipes_devices_and_endless_files_are_refused_by_name(marked: Marked, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    content = marked.clips[1].read_bytes()
    (tmp_path / "clip.mp4").write_bytes(content)
    (tmp_path / "half.mp4").write_bytes(content[: len(content) // 2])
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(40))
    with open(tmp_path / "clip.mp4.xmp", "wb") as file:
        file.truncate(40 << 30)
    with open(tmp_path / "large.mp4", "wb") as file:
        file.truncate(40 << 30)
    traced = {Path(one.file).name: one for one in framefleet.trace(tmp_path, outputs=marked.output)}
    assert traced.keys() == {"broken.png", "clip.mp4", "half.mp4"}
    assert traced["clip.mp4"].found_by == "digest"
    names = ("pipe.mp4", "zero.png", "large.mp4")
    problems = [one.problem for one in framefleet.trace([tmp_path / name for name in names])]
    assert problems[:2] == [f"it cannot be read: it is a {kind}, not a file" for kind in ("pipe", "device")]
    assert "it has more than" in (problems[2] or "")
    for option in ({"outputs": tmp_path / "pipe.mp4"}, {"trust": tmp_path / "pipe.mp4"}):
        with pytest.raises(JobError, match="it is a pipe, not a file"):
            framefleet.trace(tmp_path / "clip.mp4", **option)


def test_a_file_is_found_by_its_digest_without_c2pa(marked: Marked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "c2pa", None)  # cannot be imported
    asked = command("trace", marked.clips[1], "--output", marked.output)
    assert asked.exit_code == 0 and f"row {ids(1)}" in asked.stdout and "by its digest" in asked.stdout
    assert "signed manifests are not read without c2pa-python" in asked.stderr
    refused = command("trace", marked.clips[1], "--trust", marked.folder / "signer.pem")
    assert (refused.exit_code, "--trust needs c2pa-python" in refused.stderr) == (2, True)


def test_it_is_said_why_a_file_is_not_found(marked: Marked, tmp_path: Path) -> None:
    write_output(tmp_path / "other", ROWS)
    (tagged := tmp_path / "tagged.mp4").write_bytes(again(scene(2), row_id="ee" * 16))
    (bare := tmp_path / "bare.mp4").write_bytes(again(decode(marked.clips[1].read_bytes())))
    (copy := tmp_path / "copy.mp4").write_bytes(again(scene(9)))
    other, ours = ("--output", tmp_path / "other"), ("--output", marked.output)
    lacks = "but no output has it"
    for file, options, hint in (
        (tagged, other, f"hint: its tags name row {'ee' * 16}, {lacks} (anybody can write tags)"),
        (tagged, ours, "not found"),
        (marked.clips[1], other, f"hint: its manifest names row {ids(1)}, {lacks}"),
        (bare, other, f"hint: its watermark names row {ids(1)[:12]}, {lacks}"),
        (copy, other, f"hint: clips of {tmp_path / 'other'} have no watermark"),
        (copy, (), "hint: no output to search in"),
    ):
        assert hint in command("trace", file, *options, exits=1).stdout
    assert "hint" not in command("trace", copy, *ours).stdout
