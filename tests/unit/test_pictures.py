"""Images and videos from anywhere: opened as people see them, or refused with the reason."""

from __future__ import annotations

import hashlib
import io
import struct
import zlib
from functools import cache

import av
import numpy as np
import pytest
from hypothesis import example, given, settings, strategies as st
from PIL import Image

from framefleet.pipeline.errors import InputError
from framefleet.pipeline.rows.inputs import video_frames
from framefleet.pipeline.rows.inputs.pictures import Described, describe, open_image, open_video
from framefleet.pipeline.rows.inputs.video_frames import MediaKind
from tests.media_files import HEIGHT, WIDTH, image_file, picture, turned, video_file

IMAGES = ("png", "jpeg", "webp", "bmp", "tiff", "gif")
VIDEOS = {
    "mp4": ("mp4", "libx264", "yuv420p"),
    "mov": ("mov", "mpeg4", "yuv420p"),
    "mkv": ("matroska", "ffv1", "bgr0"),
    "webm": ("webm", "libvpx-vp9", "yuv420p"),
    "avi": ("avi", "mpeg4", "yuv420p"),
    "flv": ("flv", "flv1", "yuv420p"),
    "ts": ("mpegts", "mpeg2video", "yuv420p"),
    "gif": ("gif", "gif", "rgb8"),
    "nut": ("nut", "ffv1", "bgr0"),
    "ivf": ("ivf", "libvpx-vp9", "yuv420p"),
    "h264": ("h264", "libx264", "yuv420p"),
    "y4m": ("yuv4mpegpipe", "wrapped_avframe", "yuv420p"),
}


@cache
def video(name: str) -> bytes:
    return video_file(*VIDEOS[name])


@pytest.mark.parametrize("first", [b"wide", b"free", b"skip", b"pnot", b"uuid", b"mdat"])
def test_a_quicktime_file_may_begin_with_any_box(first: bytes) -> None:
    content = video("mov")
    at = content.index(b"mdat") - 4
    size, rest = (
        at,
        at,
    )  # of a box in the place of those before the frames, or of the frames' own: nothing moves
    if first == b"mdat":
        size, rest = at + int.from_bytes(content[at : at + 4], "big"), at + 8
    content = size.to_bytes(4, "big") + first + bytes(rest - 8) + content[rest:]
    assert describe(content, "video").num_frames == len(open_video(content, max_frames=81)) == 6


@pytest.mark.parametrize(("before", "behind"), [(b"time", b""), (b"", bytes(16))])
def test_packets_of_mpeg_ts_may_be_longer(before: bytes, behind: bytes) -> None:
    packets = [video("ts")[start : start + 188] for start in range(0, len(video("ts")), 188)]
    content = b"".join(before + packet + behind for packet in packets)  # of AVCHD, and of broadcasters
    assert describe(content, "video").num_frames == 6


@pytest.mark.parametrize("format", IMAGES)
def test_an_image_of_each_format_opens_as_rgb(format: str) -> None:
    content = image_file(format, **({"quality": 95} if format in ("jpeg", "webp") else {}))
    opened = open_image(content)
    assert (opened.mode, opened.size) == ("RGB", (WIDTH, HEIGHT))
    if format in ("png", "bmp", "tiff"):
        assert opened.tobytes() == picture().tobytes()
    for mode in {"png": ["1", "L", "LA", "P", "RGBA"], "tiff": ["CMYK"]}.get(format, []):
        assert open_image(image_file(format, mode)).mode == "RGB"


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_is_upright_by_its_exif(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = orientation > 4
    content = image_file("png", exif=exif)
    assert open_image(content).size == ((HEIGHT, WIDTH) if turned else (WIDTH, HEIGHT))
    assert (describe(content, "image").width == HEIGHT) is turned


@pytest.mark.parametrize("name", [*IMAGES, "mp4", "mov", "mkv", "webm", "avi", "flv"])
@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
def test_the_start_of_a_file_is_refused(name: str, part: float) -> None:
    content = image_file(name) if name in IMAGES else video(name)
    problem = f"it is a {name} that cannot be decoded" if name in IMAGES else ""
    with pytest.raises(InputError, match=problem) as caught:
        describe(content[: int(len(content) * part)], "image" if name in IMAGES else "video")
    assert caught.value.fix


@pytest.mark.parametrize("name", VIDEOS)
def test_a_video_of_each_container_opens(name: str) -> None:
    found = describe(video(name), "video")
    assert (found.width, found.height, found.num_frames) == (WIDTH, HEIGHT, 6)
    assert len(open_video(video(name), max_frames=81)) == 6
    frames = open_video(video(name), max_frames=4)
    assert [(frame.mode, frame.size) for frame in frames] == [("RGB", (WIDTH, HEIGHT))] * 4
    assert np.asarray(frames[0])[: HEIGHT // 2, : WIDTH // 2].mean() > 200


def test_a_live_recording_that_says_no_length_opens() -> None:
    content = video_file(*VIDEOS["webm"], live="1")
    assert describe(content, "video").num_frames == 6


@pytest.mark.parametrize(
    ("matrix", "row", "column"),
    [((0, 1, -1, 0), 0, 1), ((-1, 0, 0, -1), 1, 1), ((0, -1, 1, 0), 1, 0), ((1, 0, 0, 1), 0, 0)],
)
def test_a_video_is_turned_as_it_says(matrix: tuple[int, int, int, int], row: int, column: int) -> None:
    content = turned(video("mp4"), matrix)
    (frame,) = open_video(content, max_frames=1)
    assert frame.size == ((WIDTH, HEIGHT) if row == column else (HEIGHT, WIDTH))
    assert (describe(content, "video").width, describe(content, "video").height) == frame.size
    pixels = np.asarray(frame)
    halves = [np.hsplit(half, 2) for half in np.vsplit(pixels, 2)]
    assert halves[row][column].mean() > 200  # the white quarter


def test_a_title_that_is_no_utf8_does_no_harm() -> None:
    content = video_file(num_frames=1, movflags="use_metadata_tags").replace(b"Lavf", b"\xff\xfe\xfd\xfc")
    assert len(open_video(content, max_frames=9)) == 1


@pytest.mark.parametrize(
    ("content", "kind", "reason"),
    [
        *((video(name), "image", f"it is a video ({name})") for name in ("mp4", "mov", "avi")),
        (video("mkv"), "image", "it is a video (mkv or webm)"),
        (video("ts"), "image", "it is a video (mpeg-ts)"),
        *((image_file(name), "video", f"it is an image ({name})") for name in IMAGES[:-1]),
        *((b"\n<!DOCTYPE html><p>Sign in", kind, "it is a web page, not a") for kind in ("image", "video")),
        (b"%PDF-1.7", "image", "it is a PDF, not an image"),
        (b"hello", "image", "it is not an image"),
        (b"#EXTM3U\nfile:///etc/passwd", "video", "it is not a video"),
        (b"ffconcat version 1.0\nfile /etc/passwd\n", "video", "it is not a video"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "image", "it is an image (eps), and only png, jpeg"),
        (b"8BPS\0\1", "image", "it is an image (psd), and only png, jpeg"),
        (image_file("avif"), "image", "it is an image (avif), and only png, jpeg"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "image", "it is an image (svg), and only png"),
    ],
)
def test_a_file_of_the_wrong_type_is_refused_by_name(content: bytes, kind: MediaKind, reason: str) -> None:
    with pytest.raises(InputError) as caught:
        describe(content, kind)
    assert caught.value.problem.startswith(reason)
    assert caught.value.fix


def test_lists_of_other_files_are_no_containers() -> None:
    for text in (b"ffconcat version 1.0\nfile /etc/hostname\n", b"hello world\n" * 100):
        with pytest.raises(InputError, match="cannot be decoded"):
            list(video_frames.frames_of(text))


def test_sound_alone_is_refused() -> None:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as file:
        stream = file.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 44100
        file.mux(stream.encode(frame))
        file.mux(stream.encode())
    with pytest.raises(InputError, match="no picture track"):
        describe(buffer.getvalue(), "video")


@pytest.mark.parametrize("width", [9000, 20000])
def test_a_bomb_is_refused_before_it_is_decoded(width: int) -> None:
    header = struct.pack(">IIBBBBB", width, width, 8, 2, 0, 0, 0)
    chunks = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in ((b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 1000)), (b"IEND", b""))
    )
    with pytest.raises(InputError, match="more than 67,108,864 pixels"):
        open_image(b"\x89PNG\r\n\x1a\n" + chunks)


def test_a_video_beyond_a_bound_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video_frames, "MAX_DECODED_FRAMES", 5)
    assert len(open_video(video("mp4"), max_frames=5)) == 5
    with pytest.raises(InputError, match="more than 5 frames"):
        describe(video("mp4"), "video")
    large = bytearray(video("gif"))
    large[6:10] = struct.pack("<HH", 12_000, 12_000)  # as its header says
    with pytest.raises(InputError, match="its frames are 12000 x 12000"):
        open_video(bytes(large), max_frames=1)


def test_deep_grey_is_refused_and_not_made_white() -> None:
    deep = Image.fromarray(np.full((4, 4), 40_000, np.uint16))
    buffer = io.BytesIO()
    deep.save(buffer, "png")
    with pytest.raises(InputError, match="more than 8 bits"):
        open_image(buffer.getvalue())


def test_what_is_described_is_the_content_and_its_digest() -> None:
    content = image_file()
    digest = hashlib.sha256(content).hexdigest()
    assert describe(content, "image") == Described(sha256=digest, width=WIDTH, height=HEIGHT, num_frames=1)


@settings(deadline=None)
@given(
    name=st.sampled_from([*IMAGES, *VIDEOS]),
    changes=st.lists(st.tuples(st.floats(0, 0.999), st.binary(min_size=1, max_size=8)), max_size=4),
    part=st.floats(0, 1),
)
@example(name="avi", changes=[(0.01528, b"\0")], part=1.0)  # a codec that FFmpeg does not have
def test_broken_bytes_are_refused_and_raise_nothing_else(
    name: str, changes: list[tuple[float, bytes]], part: float
) -> None:
    content = bytearray(video(name) if name in VIDEOS else image_file(name))
    for place, new in changes:
        start = int(place * len(content))
        content[start : start + len(new)] = new
    broken = bytes(content[: int(part * len(content))])
    kind: MediaKind = "video" if name in VIDEOS else "image"
    try:
        found = describe(broken, kind)
    except InputError as error:
        assert error.fix
    else:
        assert found.num_frames > 0
