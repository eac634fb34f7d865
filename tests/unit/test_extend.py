"""Segments become a film of the length that was asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

from framefleet import Request
from framefleet.pipeline.errors import RecipeError
from framefleet.pipeline.outputs.frames.frames import Frames, to_frames
from framefleet.pipeline.recipes.extend import check_extend, extend, join_segment
from framefleet.pipeline.recipes.recipe import BUILT_IN


def _gray(*levels: int) -> Frames:
    return np.array(levels, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), dtype=np.uint8)


class MochiPipeline:
    """A pipeline that takes neither image nor video: segment k is gray, 10 k brighter than the first."""

    config: dict[str, Any] = {}  # noqa: RUF012  # read only
    components: dict[str, Any] = {}  # noqa: RUF012

    def __init__(self) -> None:
        self.num_calls = 0

    def __call__(self, *, num_frames: int, generator: Any, output_type: str) -> Frames:
        self.num_calls += 1
        return _gray(*[10 * (self.num_calls - 1) % 256] * num_frames)


def _extended(fps: float | None = 4.0, **own: Any) -> Frames:
    return to_frames(extend(MochiPipeline(), Request(arguments={"num_frames": 6}, fps=fps), **own))


def test_frames_fade_linearly_from_one_segment_to_the_next() -> None:
    film = _gray(100, 100, 100, 100, 0, 0, 0)
    assert join_segment(film, 4, _gray(200, 200, 200, 210, 220), overlap=3) == 6
    assert film[:, 0, 0, 0].tolist() == [100, 125, 150, 175, 210, 220, 0]


def test_without_overlap_segments_follow_one_another() -> None:
    film = _gray(1, 2, 0, 0, 0)
    assert join_segment(film, 2, _gray(3, 4), overlap=0) == 4
    assert film[:, 0, 0, 0].tolist() == [1, 2, 3, 4, 0]


def test_what_has_no_room_is_cut() -> None:
    film = _gray(1, 0)
    assert join_segment(film, 1, _gray(2, 3, 4), overlap=0) == 2
    assert film[:, 0, 0, 0].tolist() == [1, 2]


def test_a_film_of_segments_that_start_anew_is_cross_faded_over_half_of_them_at_most() -> None:
    assert _extended(duration_s=3.0)[:, 0, 0, 0].tolist() == [0, 0, 0, 2, 5, 8, 12, 15, 18, 20, 20, 20]


@given(st.floats(1, 20), st.floats(1, 30), st.integers(0, 5))
def test_a_film_is_as_long_as_asked_to_the_frame(duration_s: float, fps: float, overlap: int) -> None:
    film = _extended(fps, duration_s=duration_s, overlap=overlap)
    assert len(film) == round(duration_s * fps)


def test_a_row_without_a_rate_is_refused() -> None:
    with pytest.raises(RecipeError, match="no fps"):
        _extended(None, duration_s=2.0)


@pytest.mark.parametrize(("num_frames", "overlap"), [(6, 6), (1, 0)])
def test_segments_that_do_not_go_on_are_refused(num_frames: int, overlap: int) -> None:
    with pytest.raises(RecipeError, match=f"segments with num_frames {num_frames} cannot share {overlap}"):
        extend(
            MochiPipeline(),
            Request(arguments={"num_frames": num_frames}, fps=4),
            duration_s=2.0,
            overlap=overlap,
        )


@pytest.mark.parametrize(
    ("own", "wrong"),
    [
        ({}, []),
        ({"duration_s": 0.5}, ["duration_s"]),
        ({"duration_s": 61.0}, ["duration_s"]),
        ({"overlap": 5}, []),
        ({"overlap": 6}, ["overlap"]),
        ({"overlap": -1}, ["overlap"]),
        ({"num_frames": 1}, ["num_frames"]),
        ({"strength": 0.01}, ["strength"]),
    ],
)
def test_a_row_that_cannot_be_extended_is_refused(own: dict[str, Any], wrong: list[str]) -> None:
    arguments = {"duration_s": 2.0, "num_frames": 6, "num_inference_steps": 10, **own}
    assert [name for name, _ in BUILT_IN["extend"].problems(arguments)] == wrong


def test_a_duration_that_is_missing_is_named() -> None:
    ((name, refused),) = BUILT_IN["extend"].problems({"num_frames": 6})
    assert (name, refused.reason) == ("duration_s", "extend needs it in every row")


def test_the_checks_know_nothing_of_a_size_that_is_not_given() -> None:
    own = {"duration_s": 2.0, "overlap": 100, "strength": 0.8}
    assert list(check_extend(own, {})) == []
