"""Files are deterministic, lossless where they say so, show the right colours and carry their tags."""

from __future__ import annotations

import contextlib
import hashlib
import io
import random
import re
import struct
import wave
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import av
import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

from framefleet.pipeline.errors import JobError, RenderError, StoreError
from framefleet.pipeline.outputs.frames.frames import Frames, Pictures
from framefleet.pipeline.outputs.frames.result import Audio, audio_sha256, sample_rate_of, to_audio
from framefleet.pipeline.outputs.media import av_file, media_settings
from framefleet.pipeline.outputs.media.av_file import check_encoder
from framefleet.pipeline.outputs.media.media import (
    clip_header,
    decode,
    decode_audio,
    decode_floats,
    encode,
    read_metadata,
)
from framefleet.pipeline.outputs.media.media_settings import (
    ANIMATIONS,
    SOUNDS,
    VIDEO_ENCODERS,
    VIDEOS,
    Media,
    MediaFormat,
)
from framefleet.plugins.keep.replay.compare import difference, one_level
from tests.warm.process import start

KINDS = get_args(MediaFormat)
# Every format, and every encoder that needs no GPU.
MEDIA = [
    *(Media(format=kind) for kind in KINDS),
    *(
        Media(format=kind, encoder=encoder)
        for kind, known in VIDEO_ENCODERS.items()
        for encoder in known[1:3]
    ),
]
MEDIA = [media for media in MEDIA if media.codec != "h264_nvenc"]
ENCODED = [media for media in MEDIA if media.format in VIDEO_ENCODERS]


def said(media: Media) -> str:
    return f"{media.format}-{media.codec}" if media.format in VIDEO_ENCODERS else media.format


TAGS = {"row_id": "00ff", "prompt": "一只猫在月球上\nsecond line, “quoted” 🐱", "seed": "7", "empty": ""}


def gradient(num_frames: int = 5, height: int = 80, width: int = 96) -> Frames:
    red = np.linspace(0, 255, width)[None, None, :] + np.zeros((num_frames, height, 1))
    green = np.linspace(0, 255, height)[None, :, None] + np.zeros((num_frames, 1, width))
    blue = np.linspace(0, 255, num_frames)[:, None, None] + np.zeros((1, height, width))
    return np.stack([red, green, blue], axis=-1).round().astype(np.uint8)


def noise(*shape: int) -> Frames:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def sound(duration_s: float = 0.5, sample_rate: int = 24_000, num_channels: int = 2) -> Audio:
    """Return a tone with a little noise, louder than full scale here and there."""
    times = np.arange(round(duration_s * sample_rate)) / sample_rate
    tone = np.sin(2 * np.pi * 440 * times) * np.linspace(0, 1.02, len(times))
    hiss = np.random.default_rng(0).normal(0, 0.01, (num_channels, len(times)))
    return Audio(samples=(tone + hiss).astype(np.float32), sample_rate=sample_rate)


def written(media: Media, frames: Pictures | None = None, *, fps: float = 16) -> bytes:
    """Return a file with all that the format holds."""
    pictures = None if media.format in SOUNDS else gradient(1) if frames is None else frames
    audio = None if media.format in ("png", *ANIMATIONS) else sound()
    return encode(pictures, media=media, fps=fps, metadata=TAGS, audio=audio)


BOUNDED = [media for media in MEDIA if media.format not in ("png", *SOUNDS)]


@pytest.mark.parametrize("media", BOUNDED, ids=said)
def test_a_clip_larger_than_memory_bears_is_refused(media: Media, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = encode(noise(4, 80, 96, 3), media=media, fps=16, metadata={})
    for name, bound in {"MOST_FRAMES": 3, "MOST_PIXELS": 3 * 80 * 96, "LARGEST_FRAME": 79 * 96}.items():
        with monkeypatch.context() as patched:
            patched.setattr(media_settings, name, bound)
            with pytest.raises(StoreError, match=r"more than [0-9,]+ (frames|pixels)"):
                decode(clip)
    assert len(decode(clip)) == 4


@pytest.mark.parametrize("read", [decode, clip_header])
@pytest.mark.parametrize("side", [13_000, 20_000])  # Pillow itself opens the first
def test_a_png_of_more_pixels_than_memory_bears_is_not_decoded(
    side: int, read: Callable[[bytes], object]
) -> None:
    header = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    with pytest.raises(StoreError, match="pixels"):
        read(b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 1 << 20) + b"IDAT")


def test_frames_of_a_zip_keep_their_order_beyond_ten_thousand() -> None:
    frames = np.zeros((10_002, 1, 1, 3), np.uint8)
    frames[:, 0, 0, 0], frames[:, 0, 0, 1] = np.divmod(np.arange(10_002), 256)
    found = decode(encode(frames, media=Media(format="png.zip"), fps=16, metadata={}))
    assert np.array_equal(found, frames)


def test_a_sound_of_some_samples_may_be_lost_and_is_none_then() -> None:
    sound = Audio(samples=np.full((1, 10), 0.5, np.float32), sample_rate=48_000)
    clip = encode(noise(4, 32, 32, 3), media=Media(format="mp4"), fps=16, metadata={}, audio=sound)
    pcm, rate = decode_audio(clip) or (None, 0)
    assert pcm is not None and pcm.shape == (0, 1) and rate == 48_000


def test_an_alpha_that_is_opaque_is_compared_with_one_that_is_not_stored() -> None:
    frames = np.concatenate([noise(2, 32, 32, 3), np.full((2, 32, 32, 1), 255, np.uint8)], axis=-1)
    webp = partial(encode, media=Media(format="webp"), fps=16, metadata={})
    stored = decode(webp(frames))
    assert stored.shape == (2, 32, 32, 3)
    assert difference(frames, stored).max_levels == difference(frames[..., :3], stored).max_levels
    assert one_level(frames, webp).max_levels > 0


@pytest.mark.parametrize("kind", SOUNDS)
def test_sound_longer_than_memory_is_refused(kind: MediaFormat, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(av_file, "MOST_SAMPLES", 10_000)
    with pytest.raises(StoreError, match="more than 10,000 samples"):
        decode_audio(written(Media(format=kind)))


def test_a_list_of_other_files_is_no_clip(tmp_path: Path) -> None:
    other = tmp_path / "other.mkv"
    other.write_bytes(written(Media(format="mkv")))
    listed = f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{other}\n#EXT-X-ENDLIST\n"
    for content in (listed, f"ffconcat version 1.0\nfile '{other}'\n"):
        with pytest.raises(StoreError, match="are not a clip"):
            decode(content.encode())


@pytest.mark.parametrize("kind", ["png", "png.zip", "exr.zip", "gif", "webp", "mkv", "mp4"])
def test_whatever_bytes_are_broken_it_is_said(kind: MediaFormat) -> None:
    """Pillow meets them with SyntaxError, zipfile with NotImplementedError, PyAV with AttributeError."""
    frames = np.random.default_rng(0).integers(0, 255, (1 if kind == "png" else 3, 32, 48, 3), np.uint8)
    good = encode(frames, media=Media(format=kind), fps=8, metadata={"prompt": "x"})
    places = random.Random(1)
    for _ in range(150):
        broken = bytearray(good)
        start = max(0, good.rfind(b"PK\x01\x02")) if places.random() < 0.5 else 0
        for _ in range(places.choice([1, 1, 2, 8])):
            broken[start + places.randrange(min(len(broken) - start, 100))] = places.randrange(256)
        for read in (decode, read_metadata, decode_audio):
            with contextlib.suppress(StoreError):
                read(bytes(broken))


@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        *(("mkv", shape) for shape in ((4, 32, 48, 3), (3, 33, 47, 3), (1, 1, 1, 3), (3, 33, 47, 4))),
        *((kind, (1, 33, 47, depth)) for kind in ("png", "png.zip", "exr.zip") for depth in (3, 4)),
    ],
)
def test_frames_and_their_alpha_come_back_to_the_bit(kind: MediaFormat, shape: tuple[int, ...]) -> None:
    frames = noise(*shape)
    assert np.array_equal(decode(encode(frames, media=Media(format=kind), fps=16, metadata={})), frames)


@pytest.mark.parametrize("media", ENCODED, ids=said)
@pytest.mark.parametrize("frames", [gradient(), gradient(1), gradient(3, 65, 97), gradient(2, 80, 80)])
def test_what_is_stored_as_yuv_shows_the_right_colours(frames: Frames, media: Media) -> None:
    shown = decode(clip := encode(frames, media=media, fps=16, metadata={}))
    assert shown.shape == frames.shape
    assert np.abs(shown.astype(int) - frames).mean() < 3
    with av.open(io.BytesIO(clip), "r") as container:
        context = container.streams.video[0].codec_context
        tags = (context.color_range, context.colorspace, context.color_primaries, context.color_trc)
    assert tags == (1, 1, 1, 1)  # limited range, BT.709 thrice


@pytest.mark.parametrize("media", ENCODED, ids=said)
def test_a_smaller_crf_is_nearer_to_the_frames(media: Media) -> None:
    def error(crf: int) -> float:
        shown = decode(encode(frames, media=replace(media, crf=crf), fps=16, metadata={}))
        return float(np.abs(shown.astype(int) - frames).mean())

    frames = noise(3, 80, 96, 3) // 4 + gradient(3) // 2
    assert error(0) < error(30) < error(51)
    assert error(media.quality) == pytest.approx(error(0), abs=6)


def test_mp4_can_start_before_it_is_all_there() -> None:
    clip = encode(gradient(), media=Media(), fps=16, metadata={})
    assert clip.index(b"moov") < clip.index(b"mdat")


@pytest.mark.parametrize("media", MEDIA, ids=said)
def test_tags_survive_in_every_format(media: Media) -> None:
    told = {key: value for key, value in TAGS.items() if value or media.format != "flac"}  # drops empty ones
    assert read_metadata(written(media)) == told
    header = clip_header(written(media, frames := many(media)))
    assert header.tags == told
    if media.format not in SOUNDS:
        assert (header.num_frames, header.height, header.width) == frames.shape[:3]


def test_tags_lose_only_what_no_container_can_hold() -> None:
    clip = encode(gradient(), media=Media(), fps=16, metadata={"prompt": "a\0b \ud800 c"})
    assert read_metadata(clip) == {"prompt": "ab ? c"}


@pytest.mark.parametrize(
    ("fps", "rate"),
    [(16, Fraction(16)), (23.976, Fraction(2997, 125)), (30000 / 1001, Fraction(30000, 1001))],
)
@pytest.mark.parametrize("kind", VIDEOS)
def test_frame_rates_are_kept(kind: MediaFormat, fps: float, rate: Fraction) -> None:
    clip = encode(gradient(9), media=Media(format=kind), fps=fps, metadata={})
    with av.open(io.BytesIO(clip), "r") as container:
        assert container.streams.video[0].average_rate == pytest.approx(rate, rel=1e-3)
        assert container.duration == pytest.approx(9 / rate * 1_000_000, rel=0.02)
    assert clip_header(clip).fps == pytest.approx(float(rate), rel=1e-3)


def many(media: Media) -> Frames:
    return gradient(1 if media.format == "png" else 9)


SCRIPT = """
import hashlib
from tests.unit.test_media import many, MEDIA, written
for media in MEDIA:
    print(hashlib.sha256(written(media, many(media), fps=23.976)).hexdigest())
"""


def test_another_process_writes_the_same_bytes() -> None:
    ours = [hashlib.sha256(written(media, many(media), fps=23.976)).hexdigest() for media in MEDIA]
    theirs, _ = start("-c", SCRIPT).communicate(timeout=240)
    assert theirs.split() == ours


@pytest.mark.parametrize("kind", ["mkv", "png.zip", "exr.zip", "flac", "wav"])
@pytest.mark.parametrize(("num_channels", "sample_rate"), [(1, 8000), (2, 44_100), (2, 50_000)])
def test_sound_comes_back_to_the_bit(kind: MediaFormat, num_channels: int, sample_rate: int) -> None:
    audio = sound(0.5, sample_rate, num_channels)
    frames = None if kind in SOUNDS else gradient(8)
    found = decode_audio(encode(frames, media=Media(format=kind), fps=16, metadata={}, audio=audio))
    assert found is not None
    assert found[1] == sample_rate
    assert np.array_equal(found[0], audio.pcm())


@pytest.mark.parametrize("kind", ["mp4", "webm"])
@pytest.mark.parametrize(("num_channels", "sample_rate"), [(1, 16_000), (2, 24_000), (2, 48_000)])
def test_sound_with_loss_is_in_step_and_near(kind: MediaFormat, num_channels: int, sample_rate: int) -> None:
    audio = sound(1.5, sample_rate, num_channels)
    clip = encode(gradient(24), media=Media(format=kind), fps=16, metadata={}, audio=audio)
    found = decode_audio(clip)
    assert found is not None
    samples = found[0][:: found[1] // sample_rate]  # Opus is always decoded at 48 kHz
    samples = samples[: audio.samples.shape[1]].astype(float)  # what comes after fills the last packet
    assert np.corrcoef(samples[:, 0], audio.pcm()[:, 0])[0, 1] > 0.99  # 1 ms late it were 0.9
    with av.open(io.BytesIO(clip), "r") as container:
        ends = [
            float(stream.duration * stream.time_base) if stream.duration else container.duration / 1e6
            for stream in container.streams
        ]
    assert ends == pytest.approx([1.5, 1.5], abs=1 / 16)


@pytest.mark.parametrize(("kind", "sample_rate"), [("mp4", 50_000), ("webm", 44_100)])
def test_sound_of_a_rate_that_a_codec_lacks_is_refused(kind: MediaFormat, sample_rate: int) -> None:
    with pytest.raises(RenderError, match=f"{sample_rate} samples") as caught:
        encode(gradient(), media=Media(format=kind), fps=16, metadata={}, audio=sound(0.1, sample_rate))
    assert "mkv" in caught.value.fix


def test_a_webp_has_alpha_and_what_is_seen_through_it() -> None:
    frames = noise(3, 33, 47, 4)
    shown = decode(encode(frames, media=Media(format="webp", crf=0), fps=16, metadata={}))
    is_seen = frames[..., 3] > 0
    assert np.array_equal(shown[is_seen], frames[is_seen]) and not shown[~is_seen].any()


@pytest.mark.parametrize("kind", ANIMATIONS)
@pytest.mark.parametrize("fps", [0.5, 16, 23.976, 30, 50])
def test_frames_that_stand_still_come_back_as_often_as_they_were(kind: MediaFormat, fps: float) -> None:
    frames = gradient(4, 8, 8).repeat([1, 3, 1, 7], axis=0)
    shown = decode(encode(frames, media=Media(format=kind, crf=0), fps=fps, metadata={}))
    assert shown.shape == frames.shape
    assert np.array_equal(shown[1:4], shown[[1, 1, 1]]) and np.array_equal(shown[5:], shown[[5] * 7])


@pytest.mark.parametrize(("kind", "depth"), [("gif", 3), ("webp", 3), ("webp", 4)])
def test_a_clip_in_which_nothing_moves_has_all_its_frames(kind: MediaFormat, depth: int) -> None:
    frames = noise(1, 2, 2, depth).repeat(8, axis=0) // 2 + 127
    shown = decode(encode(frames, media=Media(format=kind, crf=0), fps=16, metadata={}))
    assert shown.shape == frames.shape
    assert kind == "gif" or np.array_equal(shown, frames)


def test_a_gif_that_stands_still_for_longer_than_a_gif_can_is_refused() -> None:
    with pytest.raises(RenderError, match=r"200 frames of 8x8 .* more than 655 seconds") as caught:
        encode(gradient(1, 8, 8).repeat(200, axis=0), media=Media(format="gif"), fps=0.1, metadata={})
    assert "raise media.fps" in caught.value.fix


def test_h265_has_the_same_bytes_each_time() -> None:  # of which x265 reads times that it never wrote
    media = Media(encoder="libx265")
    for num_frames in (1, 2, 3):
        clips = {encode(gradient(num_frames), media=media, fps=16, metadata={}) for _ in range(8)}
        assert len(clips) == 1 and b"hvc1" in clips.pop()
    used = [bytes(33_000 * number) for number in range(1, 60)]  # memory as it was used before
    del used[::2]
    lossy, frames = replace(media, crf=20), noise(9, 80, 96, 3)
    assert len({encode(frames, media=lossy, fps=16, metadata={}) for _ in range(8)}) == 1
    for height, width in ((64, 48), (64, 80), (128, 64)):  # it would read or write beyond its memory
        with pytest.raises(RenderError, match="too small for libx265"):
            encode(gradient(3, height, width), media=media, fps=16, metadata={})


def test_a_webp_of_crf_0_gives_the_very_same_frames_back() -> None:
    frames, media = noise(4, 33, 47, 3), Media(format="webp", crf=0)
    assert np.array_equal(decode(encode(frames, media=media, fps=16, metadata={})), frames)
    small = [len(encode(frames, media=Media(format="webp", crf=crf), fps=16, metadata={})) for crf in (5, 60)]
    assert small[0] > small[1]


def test_a_gif_shows_its_frames_in_256_colours_for_as_long_as_they_last() -> None:
    frames = gradient(16, 32, 48)
    clip = encode(frames, media=Media(format="gif"), fps=16, metadata={})
    assert np.abs(decode(clip).astype(int) - frames).mean() < 20
    for kind, fps, times in [("gif", 16, {60, 70}), ("webp", 16, {62, 63}), ("gif", 50, {20})]:
        clip = encode(frames, media=Media(format=kind), fps=fps, metadata={})  # type: ignore[arg-type]
        with Image.open(io.BytesIO(clip)) as image:
            shown = [frame.convert("RGB").info["duration"] for frame in ImageSequence.Iterator(image)]
            assert image.info["loop"] == 0  # for ever
        assert set(shown) <= times | {2 * time for time in times} | {sum(times)}
        assert sum(shown) == pytest.approx(16_000 / fps, abs=10)


@pytest.mark.parametrize(("kind", "fps"), [("gif", 60), ("webp", 120)])
def test_a_rate_that_browsers_do_not_show_is_refused(kind: MediaFormat, fps: float) -> None:
    with pytest.raises(JobError, match="browsers show no more"):
        Media(format=kind, fps=fps)
    with pytest.raises(RenderError, match="browsers show no more"):
        encode(gradient(), media=Media(format=kind), fps=fps, metadata={})


@pytest.mark.parametrize("shape", [(3, 33, 47, 3), (2, 32, 32, 4), (1, 1, 1, 3)])
def test_floats_beyond_one_come_back_to_the_bit(shape: tuple[int, ...]) -> None:
    frames = np.random.default_rng(0).normal(0, 100, shape).astype(np.float32)
    clip = encode(frames, media=Media(format="exr.zip"), fps=16, metadata={})
    assert np.array_equal(decode_floats(clip), frames)
    assert decode(clip).dtype == np.uint8


@pytest.mark.parametrize(
    ("kind", "frames", "has_sound", "said"),
    [
        ("mp4", noise(1, 32, 32, 4), False, "mp4 has none"),
        ("mkv", np.full((1, 32, 32, 3), 2.5, np.float32), False, r"span 2.5 to 2.5, not \[0, 1\]"),
        ("webm", noise(1, 32, 32, 4), False, "webm has none"),
        ("gif", noise(1, 32, 32, 4), False, "gif has none"),
        ("png", gradient(5), False, "5"),
        ("png", gradient(1), True, "png holds none"),
        ("gif", gradient(2), True, "gif holds none"),
        ("webp", gradient(2), True, "webp holds none"),
        ("mp4", None, True, "mp4 holds frames"),
        ("flac", gradient(1), True, "flac only holds sound"),
        ("webp", gradient(2, 1, 16_384), False, "2 frames of 16384x1 could not be written as webp"),
    ],
)
def test_what_a_format_lacks_is_refused(
    kind: MediaFormat, frames: Pictures | None, has_sound: bool, said: str
) -> None:
    with pytest.raises(RenderError, match=said) as caught:
        encode(frames, media=Media(format=kind), fps=16, metadata={}, audio=sound() if has_sound else None)
    assert "media.format" in caught.value.fix


def test_a_zip_that_we_do_not_write_is_not_opened() -> None:
    whole = encode(gradient(), media=Media(format="png.zip"), fps=16, metadata={})
    packed, doubled, other = io.BytesIO(), io.BytesIO(whole), io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("0000.png", bytes(1 << 20))
    with zipfile.ZipFile(doubled, "a") as archive:
        archive.filelist += archive.infolist()[:1] * 1000
        archive._didModify = True  # type: ignore[attr-defined]  # the directory is written again
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("0000.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n%%EndComments\n")
    for file, problem in ((packed, "compressed"), (doubled, "larger than it is"), (other, "not a clip")):
        with pytest.raises(StoreError, match=problem):
            decode(file.getvalue())


@pytest.mark.parametrize(
    "wrong",
    [
        {"format": "bmp"},
        {"crf": 52},
        {"format": "webm", "crf": 64},
        {"format": "webm", "encoder": "libx264"},
        {"encoder": "libvpx-vp9"},
        {"format": "gif", "encoder": "libx265"},
        {"format": "mkv", "encoder": "h264_nvenc"},
        {"crf": -1},
        {"crf": True},
        {"fps": 0},
        {"fps": float("nan")},
        {"format": "wav", "audio": False},
    ],
)
def test_wrong_media_is_refused_where_it_enters(wrong: dict[str, object]) -> None:
    with pytest.raises(JobError) as caught:
        Media(**wrong)  # type: ignore[arg-type]  # the wrong types are the test
    assert caught.value.fix
    assert wrong.get("format") != "bmp" or all(kind in caught.value.fix for kind in KINDS)


@pytest.mark.parametrize("size", [0, 10, 300, 3000])
def test_the_start_of_a_clip_is_not_a_clip(size: int) -> None:
    broken = encode(noise(1, 64, 64, 3), media=Media(), fps=16, metadata={})[:size]
    with pytest.raises(StoreError, match="not a clip"):
        decode(broken)


def test_an_encoder_that_this_machine_lacks_is_told_by_its_name() -> None:
    for media in MEDIA:
        check_encoder(media)
    try:
        check_encoder(Media(encoder="h264_nvenc"))
    except JobError as error:
        assert re.match(r"media.encoder is h264_nvenc, which PyAV \d+.* cannot use on", error.problem)
        assert "use one of libx264, libx265" in error.fix
    else:
        assert torch.cuda.is_available()


FLOATS = np.random.default_rng(0).uniform(-1, 1, (2, 500)).astype(np.float32)


@pytest.mark.parametrize("wrapped", [lambda samples: [samples], torch.from_numpy, np.asarray])
@pytest.mark.parametrize("is_batch", [False, True])
@pytest.mark.parametrize("num_channels", [1, 2])
def test_sound_may_come_in_many_wrappings(
    wrapped: Callable[[np.ndarray], Any], is_batch: bool, num_channels: int
) -> None:
    samples = FLOATS[:num_channels]
    audio = to_audio(wrapped(samples[None] if is_batch else samples), 8000)
    assert np.array_equal(audio.samples, samples)
    assert (audio.num_channels, audio.duration_s) == (num_channels, 500 / 8000)
    assert to_audio(FLOATS[0], 8000).num_channels == 1
    assert type(to_audio(FLOATS, np.int64(8000)).sample_rate) is int  # JSON has no others


@pytest.mark.parametrize(
    ("value", "rate", "said"),
    [
        (np.stack([FLOATS, FLOATS]), 8000, r"\(2, 2, 500\)"),
        (np.zeros((3, 500), np.float32), 8000, r"\(3, 500\)"),
        (FLOATS[:, :0], 8000, r"\(2, 0\)"),
        (np.zeros((2, 500), np.int16), 8000, "not one of floats"),
        ("a.wav", 8000, "type str"),
        (FLOATS * np.nan, 8000, "NaN"),
        (FLOATS, None, "rate of None"),
        (FLOATS, 0, "rate of 0"),
        (FLOATS, 44_100.0, "rate of 44100.0"),
    ],
)
def test_what_is_not_one_sound_is_refused(value: Any, rate: Any, said: str) -> None:
    with pytest.raises(RenderError, match=said) as caught:
        to_audio(value, rate)
    assert caught.value.fix


def test_what_is_louder_than_full_scale_is_cut_to_it() -> None:
    audio = Audio(samples=np.array([[0, 1, 2, -2, 0.5]], np.float32), sample_rate=8000)
    assert audio.pcm()[:, 0].tolist() == [0, 32767, 32767, -32767, 16384]


def test_the_digest_is_over_a_line_and_the_data_of_a_wav_file() -> None:
    audio = to_audio(FLOATS, 8000)
    wav = encode(None, media=Media(format="wav"), fps=1, metadata={}, audio=audio)
    with wave.open(io.BytesIO(wav)) as file:
        assert (file.getnchannels(), file.getframerate(), file.getsampwidth()) == (2, 8000, 2)
        found = hashlib.sha256(b"int16 500x2 8000\n" + file.readframes(500)).hexdigest()
    assert found == audio_sha256(audio)


def part(**config: Any) -> SimpleNamespace:
    return SimpleNamespace(config=SimpleNamespace(**config))


@pytest.mark.parametrize(
    ("components", "rate"),
    [
        # LTX-2: spectra of 16 kHz, a vocoder that makes 24 kHz of them
        ({"audio_vae": part(sample_rate=16_000), "vocoder": part(output_sampling_rate=24_000)}, 24_000),
        # Kandinsky 6: its vocoder says nothing
        ({"vae": part(), "audio_vae": part(sample_rate=44_100), "vocoder": part()}, 44_100),
        # AudioLDM2: what listens has a rate too
        ({"feature_extractor": part(sampling_rate=48_000), "vocoder": part(sampling_rate=16_000)}, 16_000),
        ({"vae": part(sampling_rate=44_100), "tokenizer": object()}, 44_100),
        ({"vae": part(), "sound_tokenizer": part(sampling_rate=48_000)}, 48_000),
        ({"vae": part(), "scheduler": part()}, None),
    ],
)
def test_the_rate_is_that_of_what_makes_the_samples(components: dict[str, Any], rate: int | None) -> None:
    assert sample_rate_of(components) == rate
