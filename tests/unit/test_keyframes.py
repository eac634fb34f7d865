"""The recipe `keyframes`: how many frames there are between two, and what of a row is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

from framefleet import Request
from framefleet.pipeline.errors import RecipeError
from framefleet.pipeline.outputs.frames.frames import Frames
from framefleet.pipeline.recipes.keyframes import between, keyframes
from framefleet.pipeline.recipes.recipe import BUILT_IN

RECIPE = BUILT_IN["keyframes"]


def frame(level: float) -> Frames:
    return np.full((2, 2, 3), round(level), dtype=np.uint8)


class Clips:
    """A pipeline whose clips fade from `image` to `last_image`."""

    def __init__(self, num_frames: int) -> None:
        self.num_frames = num_frames
        self.calls: list[dict[str, Any]] = []

    def __call__(self, **arguments: Any) -> Frames:
        self.calls.append(arguments)
        ends = [float(np.asarray(arguments[name]).mean()) for name in ("image", "last_image")]
        return np.stack([frame(level) for level in np.linspace(*ends, self.num_frames)])

    def interpolate(self, first: Frames, last: Frames) -> Frames:
        return self(image=first, last_image=last)


@given(st.integers(1, 200), st.integers(3, 20))
def test_there_are_as_many_frames_between_two_as_asked_and_they_rise(steps: int, num_frames: int) -> None:
    film = between(frame(0), frame(250), steps, Clips(num_frames).interpolate)
    levels = film[:, 0, 0, 0].astype(int)
    assert len(film) == steps + 1
    assert (levels[0], levels[-1]) == (0, 250)
    assert all(np.diff(levels) >= 0)


def render(num_frames: int = 5, *, fps: float | None = 8, **own: Any) -> tuple[Frames, Clips]:
    pipe = Clips(num_frames)
    arguments = {"image": frame(0), "last_image": frame(240), "condition_type": "i2v_loop"}
    return keyframes(pipe, Request(arguments=arguments, fps=fps), **own), pipe


def test_a_clip_has_the_frames_of_its_duration_and_its_key_frames() -> None:
    film, pipe = render(duration_s=2, num_keyframes=3)
    assert len(film) == 16
    assert film[0, 0, 0, 0] == 0 and film[-1, 0, 0, 0] == 240
    assert (
        len(pipe.calls) == 1 + 2 * 3
    )  # each half has 8 steps, which are two of 4: a middle, then both sides
    assert "condition_type" not in pipe.calls[1]
    assert len({id(call["generator"]) for call in pipe.calls}) == 1


def test_given_times_choose_the_key_frames() -> None:
    film, pipe = render(num_frames=16, duration_s=2, keyframe_times="0.5")
    ends = [np.asarray(call["last_image"]).mean() for call in pipe.calls[1:]]
    assert ends == [64, 240]  # the clip's frame 4 of 15, and its last
    assert film[4, 0, 0, 0] == 64


def test_more_key_frames_than_frames_are_the_frames() -> None:
    film, pipe = render(num_frames=3, fps=2, duration_s=1, num_keyframes=9)
    assert (len(film), len(pipe.calls)) == (2, 1)


def test_without_a_rate_there_is_no_length() -> None:
    with pytest.raises(RecipeError, match="no fps"):
        render(fps=None, duration_s=2)


@pytest.mark.parametrize(
    ("arguments", "wrong"),
    [
        ({"duration_s": 2.0, "num_frames": 16}, []),
        ({"duration_s": 2.0, "keyframe_times": "0, 0.5, 2"}, []),
        ({}, ["duration_s"]),
        ({"duration_s": 0.1}, ["duration_s"]),
        ({"duration_s": 2.0, "num_keyframes": 1}, ["num_keyframes"]),
        ({"duration_s": 2.0, "num_frames": 2}, ["num_frames"]),
        ({"duration_s": 2.0, "keyframe_times": "soon"}, ["keyframe_times"]),
        ({"duration_s": 2.0, "keyframe_times": "0, 3"}, ["keyframe_times"]),
    ],
)
def test_what_cannot_be_rendered_is_refused(arguments: dict[str, Any], wrong: list[str]) -> None:
    assert [name for name, _ in RECIPE.problems(arguments)] == wrong


def test_a_model_that_takes_one_image_cannot_render_between_two() -> None:
    assert RECIPE.pipeline("DynamiCrafterPipeline", {}) == "DynamiCrafterPipeline"
    with pytest.raises(RecipeError, match="no `image` and `last_image`"):
        RECIPE.pipeline("WanPipeline", {})
    one = {"transformer": {"image_dim": 1280}}
    with pytest.raises(RecipeError, match="no `image` and `last_image`"):
        RECIPE.pipeline("WanImageToVideoPipeline", one)
