"""A clip becomes a file and a record without a worker, a model or a store."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch

from framefleet import Clip, JobError, RenderError, Request, Store
from framefleet.pipeline.outputs.encode_clip import EncodedClip, encode_clip, store_clip
from framefleet.pipeline.outputs.frames.frames import to_pixels
from framefleet.pipeline.outputs.frames.result import Audio, Extras, audio_sha256
from framefleet.pipeline.outputs.layout import clip_path, extras_path, recorded_path
from framefleet.pipeline.outputs.media.media import decode
from framefleet.pipeline.outputs.media.media_settings import VIDEO_ENCODERS, Media

FRAMES = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
CLIP = Clip(
    row_id="ab" * 16,
    request=Request(arguments={"prompt": "a red ball"}, seed=7),
    pixels=to_pixels(FRAMES),
    native_fps=16.0,
    model="folder",
    model_digest="m",
    numerics={"dtype": "fp32"},
    seconds={"encode_s": 0.0, "denoise_s": 0.0, "decode_s": 0.0},
    batch_size=1.0,
    peak_memory_bytes=0,
    environment={"device": "cpu"},
    started_at=datetime(2026, 1, 1, tzinfo=UTC),
)
LOSSLESS = Media(format="mkv")


def test_equal_clips_are_equal_files_and_their_records_say_what_each_took() -> None:
    idle = {"rows": 0.5, "pipeline": 0.25}
    first = encode_clip(CLIP, LOSSLESS)
    again = encode_clip(replace(CLIP, batch_size=2.0, idle=idle), LOSSLESS)
    assert first.content == again.content
    assert first.record.media_sha256 == again.record.media_sha256
    assert np.array_equal(decode(first.content), FRAMES)
    assert (again.record.idle_s, again.record.idle_causes) == (0.75, '{"pipeline":0.25,"rows":0.5}')


@pytest.mark.parametrize(
    ("row", "job", "native", "format", "fps"),
    [
        (8.0, 12.0, 16.0, "mkv", 8.0),
        (None, 12.0, 16.0, "mkv", 12.0),
        (None, None, 16.0, "mkv", 16.0),
        (None, None, None, "mkv", 10.0),  # diffusers' own
        (None, None, 8.0, "png.zip", 8.0),
        (None, None, None, "png.zip", None),  # layers
        (None, None, 8.0, "gif", 8.0),
    ],
)
def test_the_rate_is_the_rows_or_the_jobs_or_the_models_or_diffusers_own(
    row: float | None, job: float | None, native: float | None, format: Any, fps: float | None
) -> None:
    clip = replace(CLIP, request=replace(CLIP.request, fps=row), native_fps=native)
    record = encode_clip(clip, Media(format=format, fps=job)).record
    assert (record.fps, record.duration_s) == (fps, fps and len(FRAMES) / fps)


SOUND = Audio(samples=np.zeros((2, 3000), np.float32), sample_rate=24_000)


def test_frames_of_an_unknown_rate_last_as_long_as_their_sound() -> None:
    clip = replace(CLIP, native_fps=None, request=replace(CLIP.request, fps=None), audio=SOUND)
    record = encode_clip(clip, LOSSLESS).record
    assert record.fps_source == "sound"
    assert record.duration_s == pytest.approx(record.audio_duration_s)
    silent = encode_clip(replace(clip, audio=None), LOSSLESS).record
    assert (silent.fps, silent.fps_source, silent.audio_duration_s) == (10.0, "framefleet", None)


def test_sound_is_told_in_the_record_unless_the_job_wants_none(caplog: pytest.LogCaptureFixture) -> None:
    clip = replace(CLIP, audio=SOUND, audio_sha256=audio_sha256(SOUND))
    record = encode_clip(clip, LOSSLESS).record
    told = (record.audio_sha256, record.audio_sample_rate, record.audio_channels)
    assert told == (audio_sha256(SOUND), 24_000, 2)
    without = replace(LOSSLESS, audio=False)
    assert encode_clip(clip, without).content == encode_clip(CLIP, LOSSLESS).content
    assert encode_clip(clip, without).record.audio_sha256 is None
    assert not caplog.records
    longer = Audio(samples=np.zeros((2, 24_000), np.float32), sample_rate=24_000)
    assert encode_clip(replace(CLIP, audio=longer), LOSSLESS).record.audio_duration_s == 1.0
    assert "and its sound 1.00 s" in caplog.text
    out_of_step = replace(clip, request=replace(CLIP.request, fps=30.0))
    with pytest.raises(RenderError, match=r"at 30 fps .* made for 16"):
        encode_clip(out_of_step, LOSSLESS)
    assert encode_clip(out_of_step, without).record.fps == 30


def test_arrays_beside_a_clip_are_stored_before_it(tmp_path: Path) -> None:
    extras = Extras(arrays={"c2w": torch.eye(4)}, values={"said": "x"})
    store, encoded = Store(str(tmp_path)), encode_clip(replace(CLIP, extras=extras), LOSSLESS)
    record = store_clip(store, encoded)
    assert record.extra_outputs_path == extras_path(CLIP.row_id)
    content = store.read(extras_path(CLIP.row_id))
    assert encoded.record.extra_outputs_sha256 == hashlib.sha256(content).hexdigest()
    assert encoded.record.extra_outputs == '{"said":"x"}'
    other = store_clip(store, of_bytes(encoded, encoded.content, b"other"))
    assert (other.path, store.read(str(other.extra_outputs_path))) == (record.path, b"other")
    assert store.read(extras_path(CLIP.row_id)) == content


def test_a_stored_clip_has_its_place_and_its_time_in_the_record(tmp_path: Path) -> None:
    store, encoded = Store(str(tmp_path)), encode_clip(CLIP, LOSSLESS)
    record = store_clip(store, encoded)
    assert record.path == f"clips/ab/{CLIP.row_id}.mkv"
    assert record.uri == store.url_of(record.path)
    assert store.read(record.path) == encoded.content
    assert record.started_at == CLIP.started_at < encoded.record.finished_at <= record.finished_at
    changed: dict[str, Any] = {
        name: getattr(record, name) for name in ("uri", "path", "preview_path", "finished_at", "write_s")
    }
    assert replace(encoded.record, **changed) == record


def of_bytes(encoded: EncodedClip, content: bytes, extras: bytes | None = None) -> EncodedClip:
    record = replace(
        encoded.record,
        media_sha256=hashlib.sha256(content).hexdigest(),
        extra_outputs_sha256=extras and hashlib.sha256(extras).hexdigest(),
    )
    return replace(encoded, content=content, record=record, extras=extras)


def test_another_clip_is_never_replaced_but_stands_beside_it(tmp_path: Path) -> None:
    store, first = Store(str(tmp_path)), encode_clip(CLIP, LOSSLESS)
    plain = clip_path(CLIP.row_id, ".mkv")
    assert {store_clip(store, first).path for _ in range(2)} == {plain}
    second = of_bytes(first, b"other")
    digest = second.record.media_sha256
    tagged = f"clips/ab/{CLIP.row_id}-{digest[:8]}.mkv"
    assert {store_clip(store, second).path for _ in range(2)} == {tagged}
    store.write(tagged, b"oth")  # damaged since
    assert store_clip(store, second).path == f"clips/ab/{CLIP.row_id}-{digest}.mkv"
    assert (store.read(plain), store.read(tagged)) == (first.content, b"oth")


def test_a_record_cannot_say_that_its_clip_is_another_rows() -> None:
    own = f"clips/ab/{CLIP.row_id}"
    for path in (f"{own}{tag}.png.zip" for tag in ("", "-01234567", "-" + "8" * 64)):
        assert recorded_path({"row_id": CLIP.row_id, "uri": "", "path": path}, "records") == path
    for path in ("clips/ab/x.mkv", "../x.mkv", f"{own}-0.mkv", f"{own}.exe"):
        with pytest.raises(JobError, match="not as framefleet wrote it"):
            recorded_path({"row_id": CLIP.row_id, "uri": "", "path": path}, "records")


def test_a_record_says_whose_bytes_are_not_repeatable() -> None:
    with mock.patch("framefleet.pipeline.outputs.encode_clip.encode", return_value=b"of a GPU"):
        told = [encode_clip(CLIP, Media(encoder=encoder)).record for encoder in VIDEO_ENCODERS["mp4"]]
    assert [record.media_encoder for record in told] == [None, None, None, "h264_nvenc"]
