"""What the files of a table hold: each read once, the answers kept on disk."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from framefleet import Inputs
from framefleet.pipeline.errors import Refused, StoreError
from framefleet.pipeline.outputs.stores import retries
from framefleet.pipeline.rows.inputs.pictures import Described, describe
from framefleet.pipeline.rows.inputs.survey import InputIndex
from tests.media_files import image_file, video_file


@pytest.fixture
def index(tmp_path: Path) -> Iterator[InputIndex]:
    (tmp_path / "a.png").write_bytes(image_file())
    (tmp_path / "b.mp4").write_bytes(video_file())
    with closing(InputIndex(Inputs([str(tmp_path)]))) as index:
        yield index


def test_what_was_prefetched_is_found_though_the_file_is_gone(index: InputIndex, tmp_path: Path) -> None:
    index.prefetch([("a.png", "image"), ("b.mp4", "video"), ("a.png", "image")])
    (tmp_path / "a.png").unlink()
    assert index.find("a.png", "image") == describe(image_file(), "image")
    assert index.find("b.mp4", "video") == describe(video_file(), "video")


def test_what_was_not_prefetched_is_read_when_asked_for_and_then_remembered(
    index: InputIndex, tmp_path: Path
) -> None:
    assert isinstance(index.find("a.png", "image"), Described)
    (tmp_path / "a.png").unlink()
    assert isinstance(index.find("a.png", "image"), Described)


def test_a_file_is_another_thing_as_an_image_and_as_a_video(index: InputIndex) -> None:
    index.prefetch([("a.png", "image"), ("a.png", "video"), ("b.mp4", "image")])
    assert isinstance(index.find("a.png", "image"), Described)
    for uri, kind, reason in (
        ("a.png", "video", "it is an image (png), not a video"),
        ("b.mp4", "image", "it is a video (mp4), not an image"),
    ):
        answer = index.find(uri, kind)  # type: ignore[arg-type]  # a str that is a MediaKind
        assert isinstance(answer, Refused) and answer.reason == reason and answer.fix


def test_refusals_are_answers_and_do_not_stop_the_others(index: InputIndex) -> None:
    index.prefetch([("none.png", "image"), ("/etc/passwd", "image"), ("a.png", "image")])
    assert index.find("none.png", "image") == Refused(reason="it does not exist", fix="check the path")
    assert isinstance(index.find("/etc/passwd", "image"), Refused)
    assert isinstance(index.find("a.png", "image"), Described)


def test_what_an_index_has_started_ends_with_it_though_nobody_closes_it(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(image_file())
    before = threading.enumerate()
    index = InputIndex(Inputs([str(tmp_path)]))
    index.find("a.png", "image")
    threads = [thread for thread in threading.enumerate() if thread not in before]
    (box,) = index._describer._boxes._idle
    assert box._process.poll() is None
    del index
    for thread in threads:
        thread.join(120)
    assert not any(thread.is_alive() for thread in threads)
    assert box._process.poll() is not None


def test_a_store_that_does_not_answer_stops_the_survey_and_is_asked_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(retries, "FIRST_ANSWER_S", 0.1)
    with closing(InputIndex(Inputs(["ftp://127.0.0.1:1/images"]))) as index:
        for _ in range(2):
            with pytest.raises(StoreError):
                index.find("a.png", "image")
