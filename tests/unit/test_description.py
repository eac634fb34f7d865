"""Images and videos are decoded in sandboxes, and all of them together in so much memory."""

from __future__ import annotations

import io
import os
import signal
import struct
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import av
import pytest
from PIL import Image

from framefleet.pipeline.errors import InputError
from framefleet.pipeline.guards.sandbox import Ended, Sandboxes
from framefleet.pipeline.model.specs.signature import MediaKind
from framefleet.pipeline.rows.inputs.pictures import (
    DescribeParts,
    Describer,
    decoding_bytes,
    describe,
    describe_parts,
)
from framefleet.pipeline.rows.inputs.roots import MAX_FRAME_PIXELS, MAX_IMAGE_PIXELS
from framefleet.pipeline.rows.inputs.video_frames import Budget
from tests.media_files import image_file, video_file


@pytest.fixture
def describer() -> Iterator[Describer]:
    with closing(Describer()) as describer:
        yield describer


def peak_bytes(describer: Describer) -> int:
    """Return the most memory that the one sandbox ever had."""
    (box,) = describer._boxes._idle
    lines = Path(f"/proc/{box._process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (image_file(), "image"),
        (video_file(), "video"),
        (image_file()[:500], "image"),
        (image_file(), "video"),
    ],
)
def test_a_sandbox_describes_and_refuses_what_this_process_would(
    content: bytes, kind: MediaKind, describer: Describer
) -> None:
    def answer(describe_parts: DescribeParts) -> object:
        try:
            return describe(content, kind, describe_parts)
        except InputError as error:
            return error.problem, error.fix

    assert answer(describer.describe_parts) == answer(describe_parts)


def test_a_picture_of_the_largest_size_is_described(describer: Describer) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (8192, 8192)).save(buffer, "webp", lossless=True, method=0)
    assert len(buffer.getvalue()) < 100
    assert decoding_bytes(buffer.getvalue(), "image") == 16 * MAX_IMAGE_PIXELS
    assert describe(buffer.getvalue(), "image", describer.describe_parts).width == 8192
    assert peak_bytes(describer) < 1400 << 20


def test_a_video_that_lists_millions_of_frames_takes_no_memory(describer: Describer) -> None:
    bomb = bytearray(video_file())
    many = 80_000_000
    at = bomb.index(b"stsz")
    bomb[at + 8 : at + 16] = struct.pack(">II", 100, many)  # each of 100 bytes
    for table, place in ((b"stsc", 16), (b"stts", 12)):
        at = bomb.index(table) + place
        bomb[at : at + 4] = struct.pack(">I", many)
    with pytest.raises(InputError):
        describe(bytes(bomb), "video", describer.describe_parts)
    assert peak_bytes(describer) < 500 << 20


def test_frames_that_are_too_large_are_not_decoded_to_see_that(describer: Describer) -> None:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="avi") as file:
        stream = file.add_stream("mjpeg", rate=8)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = 8192, 4096, "yuvj420p"
        frame = av.VideoFrame(8192, 4096, "yuvj420p")
        for plane in frame.planes:
            plane.update(bytes(plane.buffer_size))
        file.mux(stream.encode(frame))
        file.mux(stream.encode())
    content = buffer.getvalue()
    with pytest.raises(
        InputError, match=r"its frames are 4096 x 8192 \(height x width\), more than 16,777,216 pixels"
    ):
        describe(content, "video", describer.describe_parts)
    assert peak_bytes(describer) < 150 << 20


def test_frames_of_an_unknown_size_are_taken_for_the_largest() -> None:
    assert decoding_bytes(video_file("mov", "mpeg4"), "video") == 100 * MAX_FRAME_PIXELS
    assert decoding_bytes(video_file(), "video") < 100 * 100_000


def test_what_crashes_a_sandbox_is_refused_and_none_is_left_by_a_thread_at_work_when_it_was_closed(
    describer: Describer, monkeypatch: pytest.MonkeyPatch
) -> None:
    describer.close()
    describe(image_file(), "image", describer.describe_parts)  # as that thread goes on
    assert not describer._boxes._idle
    monkeypatch.setattr(describer, "_boxes", Sandboxes("tests.no_such_module", max_silence_s=120.0))
    with pytest.raises(InputError, match="the process that read it crashed") as caught:
        describe(image_file(), "image", describer.describe_parts)
    assert caught.value.fix


def test_a_budget_is_never_exceeded_and_one_that_is_too_large_is_alone() -> None:
    budget, lock = Budget(10), threading.Lock()
    held, alone = [0], []

    def use(count: int) -> None:
        with budget.take(count):
            with lock:
                held[0] += count
                assert held[0] <= max(10, count)
                alone.extend([held[0]] if count > 10 else [])
            time.sleep(0.001)  # so that others come meanwhile
            with lock:
                held[0] -= count

    with ThreadPoolExecutor(40) as threads:
        list(threads.map(use, [1, 4, 6, 3, 25] * 8))
    assert held == [0] and alone == [25] * 8


@pytest.fixture
def boxes() -> Iterator[Sandboxes]:
    with closing(Sandboxes("tests.sandboxed", max_silence_s=120.0)) as boxes:
        yield boxes


def said(boxes: Sandboxes, message: bytes) -> str:
    with boxes.one() as box:
        box.send(message)
        return box.receive().decode()


def test_a_sandbox_is_another_process_used_again_and_two_at_one_time_are_two(boxes: Sandboxes) -> None:
    pid, word = said(boxes, b"hello").split()
    assert (word, int(pid) != os.getpid()) == ("hello", True)
    assert said(boxes, b"again") == f"{pid} again"
    with boxes.one() as first, boxes.one() as second:
        for box in (first, second):
            box.send(b"hello")
        assert first.receive() != second.receive()


@pytest.mark.parametrize(("message", "why"), [(b"crash", "SIGSEGV"), (b"eat", "exit code 1")])
def test_a_crash_and_a_want_of_memory_end_the_sandbox_alone(
    message: bytes, why: str, boxes: Sandboxes
) -> None:
    pid = said(boxes, b"hello").split()[0]
    with pytest.raises(Ended, match=f"the process that read it crashed .{why}"):
        said(boxes, message)
    assert said(boxes, b"hello").split()[0] != pid


def test_a_sandbox_that_was_killed_while_idle_is_not_used_again(boxes: Sandboxes) -> None:
    pid = int(said(boxes, b"hello").split()[0])
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert said(boxes, b"hello").split()[0] != str(pid)


def test_what_is_silent_for_too_long_is_ended() -> None:
    with (
        closing(Sandboxes("tests.sandboxed", max_silence_s=0.1)) as boxes,
        pytest.raises(Ended, match="more than 0 s"),
    ):
        said(boxes, b"sleep")


def test_a_module_of_the_working_folder_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, boxes: Sandboxes
) -> None:
    (tmp_path / "resource.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    monkeypatch.chdir(tmp_path)
    assert said(boxes, b"hello").endswith("hello")
    assert not (tmp_path / "ran").exists()


def test_a_forked_process_has_sandboxes_of_its_own(boxes: Sandboxes) -> None:
    pid = said(boxes, b"hello").split()[0]
    child = os.fork()
    if not child:
        is_own = False
        try:
            is_own = said(boxes, b"hello").split()[0] != pid
        finally:  # whatever is raised: it must not go on with the tests
            os._exit(0 if is_own else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert said(boxes, b"hello") == f"{pid} hello"
