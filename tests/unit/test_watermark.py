"""Watermarks carry a row_id's first digits: the same way every time, and through what is done to files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter

from framefleet.api.clips import Media, StepInput, decode, decode_audio, encode
from framefleet.pipeline.errors import JobError, ModelError, RenderError
from framefleet.pipeline.outputs.encode_clip import encode_clip, encode_input
from framefleet.pipeline.outputs.frames.frames import Frames, frames_sha256, to_pixels
from framefleet.pipeline.outputs.frames.result import Audio, audio_sha256
from framefleet.plugins.marks.payload import payload_of, row_prefix
from framefleet.plugins.marks.settings import ClipMarks, Watermark, weights_digest
from framefleet.plugins.marks.step import MarkStep
from framefleet.plugins.marks.watermark import FoundWatermark, mark_frames, mark_sound, watermarks_in
from framefleet.plugins.marks.weights import read_weights
from tests.commands import command
from tests.jobs import job_values, write_job, write_table
from tests.unit.test_encode_clip import CLIP

SPREAD = (Watermark(name="spread"),)
ROW_ID = "0123456789abcdef" * 2
# As the first version wrote them: a detector has to read them for as long as clips are about.
PAYLOAD = "0000000000000000000001111101000101000100001100001111011100001100"
MARKED_GREY = "a5705fb1f1e0c2948a6eb7941b2202576d8c63f9e8bef46dc8668c4c4b419d67"


def scene(num_frames: int = 9, height: int = 256, width: int = 448) -> Frames:
    """Return a picture with shapes and grain, over which a camera moves."""
    draw, sides = np.random.default_rng(0), (height + 64, width + 64, 3)
    layers = [gaussian_filter(draw.standard_normal(sides), (size, size, 0)) * size for size in (2, 9, 30)]
    wide = 120 + 40 * np.sum(layers, axis=0)
    starts = [(2 * number, 3 * number) for number in range(num_frames)]
    moved = [wide[top : top + height, left : left + width] for top, left in starts]
    return np.stack(moved).clip(0, 255).astype(np.uint8)


def tune(seconds: float = 5.0, rate: int = 24_000) -> Audio:
    time, draw = np.arange(int(seconds * rate)) / rate, np.random.default_rng(0)
    sound = 0.003 * draw.standard_normal(len(time))
    for pitch in (220, 330, 554, 880, 1320, 2640):
        sound += 0.1 * np.sin(2 * np.pi * pitch * time) * np.exp(-3 * ((2 * time + draw.random()) % 1))
    return Audio(samples=np.stack([sound, sound]).astype(np.float32), sample_rate=rate)


MARKED = mark_frames(scene(), SPREAD, ROW_ID).astype(np.uint8)


def found(frames: Sequence[Frames]) -> FoundWatermark | None:
    return next(watermarks_in(list(frames), None, SPREAD), None)


def resized(frames: Frames, scale: float) -> Frames:
    size = (round(frames.shape[2] * scale), round(frames.shape[1] * scale))
    pictures = [Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC) for frame in frames]
    return np.stack([np.asarray(picture) for picture in pictures])


def through_x264(frames: Frames, crf: int) -> Frames:
    return decode(encode(frames, media=Media(crf=crf), fps=16, metadata={}))


def test_marked_frames_differ_by_three_levels_at_the_most_and_repeat_bit_for_bit() -> None:
    frames = scene(3)
    marked = mark_frames(frames, SPREAD, ROW_ID)
    assert 1 <= np.abs(marked.astype(int) - frames).max() <= 3
    threads = torch.get_num_threads()
    assert np.array_equal(mark_frames(frames, SPREAD, ROW_ID), marked)
    assert torch.get_num_threads() == threads
    assert np.array_equal(mark_frames(frames[1:2], SPREAD, ROW_ID)[0], marked[1])  # each by itself
    assert not np.array_equal(mark_frames(frames, SPREAD, "f" * 32), marked)
    for shape in ((1, 1, 1, 3), (2, 33, 47, 3), (1, 270, 5, 3)):
        assert mark_frames(np.zeros(shape, np.uint8), SPREAD, ROW_ID).shape == shape


def test_the_payload_of_a_row_is_written_the_same_for_ever() -> None:
    assert "".join(map(str, payload_of(ROW_ID, 256)[:64])) == PAYLOAD
    marked = mark_frames(np.full((1, 64, 64, 3), 128, np.uint8), SPREAD, ROW_ID)
    assert frames_sha256(marked) == MARKED_GREY


def test_alpha_stays_and_what_is_no_picture_of_eight_bits_is_refused() -> None:
    frames = np.concatenate([scene(2), scene(2)[..., :1]], axis=-1)
    marked = mark_frames(frames, SPREAD, ROW_ID)
    assert np.array_equal(marked[..., 3], frames[..., 3])
    assert np.array_equal(marked[..., :3], mark_frames(scene(2), SPREAD, ROW_ID))
    with pytest.raises(RenderError, match="spread marks"):
        mark_frames(np.full((1, 8, 8, 3), 2.0, np.float32), SPREAD, ROW_ID)


def test_small_clips_are_reported_before_they_are_rendered(tmp_path: Path) -> None:
    values = job_values(write_table(tmp_path / "t.parquet", [{"prompt": "a", "seed": 1}]), tmp_path / "out")
    job = write_job(tmp_path / "job.yaml", values | {"marks": {"watermark": "spread"}})
    planned = command("plan", job)
    assert "marks.watermark: spread can often not be read from clips of 16 x 16" in planned.stderr
    assert MarkStep(marks=ClipMarks(watermarks=SPREAD)).note_of_size(192, 256) is None


def test_floats_beyond_the_range_of_marks_are_refused_before_rendering() -> None:
    media = Media(format="exr.zip")
    with pytest.raises(JobError, match=r"spread marks 8-bit frames, but media\.format is exr\.zip"):
        MarkStep(marks=ClipMarks(watermarks=SPREAD)).check(media)
    MarkStep(marks=ClipMarks(watermarks=(Watermark(name="audioseal", weights="a.pth"),))).check(media)


def test_a_row_is_found_through_what_is_done_to_files() -> None:
    half = through_x264(resized(MARKED, 0.5), 20)
    cropped = MARKED[:, 13:-13, 22:-22]
    for frames, scale in (
        (MARKED, 1.0),
        (through_x264(MARKED, 23), 1.0),
        (through_x264(MARKED[::2], 28), 1.0),
        (through_x264(MARKED, 18)[4:5], 1.0),  # one frame
        (half, 0.5),
        (through_x264(cropped[..., : cropped.shape[2] // 2 * 2, :], 23), 1.0),
        (resized(cropped, 1.1)[:3], 1.1),
        (resized(MARKED, 0.87)[:3], 0.87),
    ):
        mark = found(frames)
        assert mark is not None
        assert (mark.prefix, mark.scale) == (ROW_ID[:12], pytest.approx(scale, rel=0.02))


def test_nothing_is_found_where_nothing_was_put() -> None:
    assert found(scene(2, 128, 128)) is None
    assert found([np.zeros((64, 64, 3), np.uint8)]) is None
    assert found([np.random.default_rng(1).integers(0, 256, (99, 99, 3), dtype=np.uint8)]) is None
    assert list(watermarks_in([], tune(), SPREAD)) == []
    silence = Audio(samples=np.zeros((1, 10), np.float32), sample_rate=8000)
    assert list(watermarks_in([], silence, SPREAD)) == []


def test_sound_is_found_through_aac_and_in_a_part_of_it() -> None:
    audio = tune()
    marked = mark_sound(audio, SPREAD, ROW_ID)
    assert np.array_equal(mark_sound(audio, SPREAD, ROW_ID).samples, marked.samples)
    assert marked.samples.shape == audio.samples.shape
    file = encode(scene(2), media=Media(), fps=16, metadata={}, audio=marked)
    pcm, rate = decode_audio(file) or (None, 0)
    assert pcm is not None
    heard = Audio(samples=(pcm.T / 32767).astype(np.float32), sample_rate=rate)
    part = replace(marked, samples=marked.samples[:, 50_000:100_000])
    for sound in (marked, heard, part):
        assert [one.prefix for one in watermarks_in([], sound, SPREAD)] == [ROW_ID[:12]]


def test_payloads_of_every_length_are_read_back_and_noise_is_refused() -> None:
    draw = np.random.default_rng(2)
    for num_bits, digits in ((16, 4), (61, 11), (128, 28), (256, 12)):
        bits = payload_of(ROW_ID, num_bits)
        assert row_prefix(2.0 * bits - 1) == ROW_ID[:digits]
        if num_bits > 16:
            assert [row_prefix(draw.standard_normal(num_bits)) for _ in range(20)] == [None] * 20
    noisy = 2.0 * payload_of(ROW_ID, 256) - 1 + draw.standard_normal(256)  # one bit in six is wrong
    assert row_prefix(noisy) == ROW_ID[:12]


def test_a_record_has_the_digests_of_the_frames_without_and_with_their_mark() -> None:
    clip = replace(CLIP, row_id=ROW_ID, pixels=to_pixels(scene(5)), audio=tune(1.0))
    media, step = Media(format="mkv"), MarkStep(marks=ClipMarks(watermarks=SPREAD))
    plain, marked = encode_clip(clip, media), encode_clip(clip, media, [step])
    assert marked.content == encode_clip(clip, media, [step]).content
    assert marked.record.frames_sha256 == plain.record.frames_sha256 == frames_sha256(scene(5))
    assert marked.record.marked_sha256 == frames_sha256(decode(marked.content))
    pcm, rate = decode_audio(marked.content) or (None, 0)
    assert pcm is not None
    as_pcm = Audio(samples=(pcm.T / 32767).astype(np.float32), sample_rate=rate)
    assert marked.record.marked_audio_sha256 == audio_sha256(as_pcm)
    assert plain.record.marked_sha256 is None
    encode_input(of := StepInput(clip=clip, media=media), [step])
    assert of.values == {"marks": '{"watermarks":["spread"]}'}


def test_two_watermarks_of_one_part_and_missing_weights_are_refused() -> None:
    weights = Watermark(name="videoseal", weights="x")
    for watermarks, said in (
        ((*SPREAD, weights), "spread and videoseal both mark frames"),
        ((Watermark(name="audioseal"),), "audioseal needs weights"),
        ((Watermark(name="spread", weights="x"),), "spread needs no weights"),
    ):
        with pytest.raises(JobError, match=said):
            ClipMarks(watermarks=watermarks)


def test_weights_are_locked(tmp_path: Path) -> None:
    for name in ("a.pth", "b.pth"):
        torch.save({"model": {"x": torch.ones(2)}, "step": 3}, tmp_path / name)
    folder = Watermark(name="trustmark", weights=str(tmp_path))
    one = Watermark(name="videoseal", weights=str(tmp_path / "a.pth"))
    locked = one.model_copy(update={"digest": weights_digest(one)})
    assert [list(tensors) for tensors in read_weights(locked)] == [["x"]]
    assert weights_digest(folder) != weights_digest(one)
    torch.save({"model": {"x": torch.zeros(1)}}, tmp_path / "a.pth")
    with pytest.raises(ModelError, match="are not those of the job"):
        read_weights(locked)
    with pytest.raises(ModelError, match="No such file"):
        weights_digest(one.model_copy(update={"weights": str(tmp_path / "none")}))
    with pytest.raises(ModelError, match=r"c\.pth is missing"):
        read_weights(folder, ["c.pth"])


def test_weights_of_a_stranger_run_no_code_and_take_no_memory(tmp_path: Path) -> None:
    weights = {
        "harmful": {"model": Harmful()},
        "a list": [torch.zeros(1)],
        "a name that getattr would follow": {"__class__.__init__": torch.zeros(1)},
        "a tensor far larger than its file": {"x": torch.zeros(1).expand(1 << 40)},
    }
    one = Watermark(name="videoseal", weights=str(tmp_path / "a.pth"))
    for checkpoint in weights.values():
        torch.save(checkpoint, tmp_path / "a.pth")
        with pytest.raises(ModelError, match="more than tensors"):
            read_weights(one)
    (tmp_path / "a.pth").write_bytes(b"\x80\x02}q\x00.")
    with pytest.raises(ModelError, match="has no valid weights of videoseal"):
        read_weights(one)
    assert "HARMED" not in os.environ
    folder = Watermark(name="trustmark", weights=str(tmp_path))
    os.mkfifo(tmp_path / "encoder_Q.ckpt")
    with pytest.raises(ModelError, match=r"encoder_Q\.ckpt is missing"):
        read_weights(folder, ["encoder_Q.ckpt"])
    with open(tmp_path / "decoder_Q.ckpt", "wb") as file:
        file.truncate(40 << 30)
    with pytest.raises(ModelError, match="more than 64 files or 4,294,967,296 bytes"):
        weights_digest(folder)


class Harmful:
    def __reduce__(self) -> object:
        return (exec, ("import os; os.environ['HARMED'] = '1'",))
