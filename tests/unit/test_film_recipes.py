"""Films of the length that was asked for: `extend` joins segments, `keyframes` renders between frames."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

from framefleet import RecipeError, RenderError, Request
from framefleet.pipeline.outputs.frames.frames import Frames, to_frames
from framefleet.pipeline.outputs.frames.result import Audio
from framefleet.pipeline.recipes.catalog import BUILT_IN
from framefleet.plugins.recipes.extend import (
    FilmSound,
    Segment,
    check_extend,
    extend,
    join_segment,
    silent_frames,
    to_segment,
)
from framefleet.plugins.recipes.keyframes import between, keyframes


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


@pytest.mark.parametrize(
    ("film", "end", "segment", "overlap", "joined"),
    [
        ([100] * 4, 4, [200, 200, 200, 210, 220], 3, [100, 125, 150, 175, 210, 220, 0]),
        ([1, 2], 2, [3, 4], 0, [1, 2, 3, 4, 0]),
        ([1], 1, [2, 3, 4], 0, [1, 2]),
    ],
    ids=["faded", "without overlap", "cut where there is no room"],
)
def test_a_segment_is_joined_to_a_film(
    film: list[int], end: int, segment: list[int], overlap: int, joined: list[int]
) -> None:
    frames = _gray(*film, *[0] * (len(joined) - len(film)))
    filled = min(end + len(segment) - overlap, len(joined))
    assert join_segment(frames, end, _gray(*segment), overlap=overlap) == filled
    assert frames[:, 0, 0, 0].tolist() == joined


def test_a_film_of_segments_that_start_anew_is_cross_faded_over_half_of_them_at_most() -> None:
    assert _extended(duration_s=3.0)[:, 0, 0, 0].tolist() == [0, 0, 0, 2, 5, 8, 12, 15, 18, 20, 20, 20]


class Continued(MochiPipeline):
    """A pipeline that takes images, and notes what each call is given beside `num_frames`."""

    def __init__(self) -> None:
        super().__init__()
        self.inputs: list[dict[str, Any]] = []

    def __call__(
        self,
        *,
        num_frames: int,
        generator: Any,
        output_type: str,
        image: Any = None,
        last_image: Any = None,
        video: Any = None,
        condition_type: str | None = None,
    ) -> Frames:
        inputs = {"image": image, "last_image": last_image, "video": video, "condition_type": condition_type}
        self.inputs.append({name: value for name, value in inputs.items() if value is not None})
        return super().__call__(num_frames=num_frames, generator=generator, output_type=output_type)


Continued.__name__ = "OpenSoraPipeline"  # what follows a pipeline is found by the name of its class


@pytest.mark.parametrize(
    "own",
    [
        *({}, {"video": "v"}, {"video": "v", "condition_type": "v2v_head"}),
        *({"image": "a", "condition_type": "i2v_tail"}, {"image": "a", "last_image": "b"}),
    ],
    ids=str,
)
def test_later_segments_start_from_the_last_frame_and_from_nothing_else(own: dict[str, Any]) -> None:
    pipe = Continued()
    extend(pipe, Request(arguments={"num_frames": 5, **own}, fps=4.0), duration_s=3.0)
    first, *later = pipe.inputs
    assert first == own
    assert [list(inputs) for inputs in later] == [["image"]] * 2
    assert [np.asarray(inputs["image"]).max() for inputs in later] == [0, 10]


@given(st.floats(1, 20), st.floats(1, 30), st.integers(0, 5))
def test_a_film_is_as_long_as_asked_to_the_frame(duration_s: float, fps: float, overlap: int) -> None:
    film = _extended(fps, duration_s=duration_s, overlap=overlap)
    assert len(film) == round(duration_s * fps)


@pytest.mark.parametrize(
    ("fps", "num_frames", "overlap", "problem"),
    [
        (None, 6, 0, "no fps"),
        (4.0, 6, 6, "segments with num_frames 6 cannot share 6"),
        (4.0, 1, 0, "segments with num_frames 1 cannot share 0"),
    ],
)
def test_a_film_without_a_rate_or_of_segments_that_do_not_go_on_is_refused(
    fps: float | None, num_frames: int, overlap: int, problem: str
) -> None:
    request = Request(arguments={"num_frames": num_frames}, fps=fps)
    with pytest.raises(RecipeError, match=problem):
        extend(MochiPipeline(), request, duration_s=2.0, overlap=overlap)


def test_a_missing_duration_is_named_and_a_size_that_is_not_given_is_not_checked() -> None:
    ((name, refused),) = BUILT_IN["extend"].problems({"num_frames": 6})
    assert (name, refused.reason) == ("duration_s", "extend needs it in every row")
    assert [name for name, _ in BUILT_IN["keyframes"].problems({})] == ["duration_s"]
    assert list(check_extend({"duration_s": 2.0, "overlap": 100, "strength": 0.8}, {})) == []


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
    # Each half has 8 steps, which are two of 4: a middle, then both sides.
    assert len(pipe.calls) == 1 + 2 * 3
    assert "condition_type" not in pipe.calls[1]
    assert len({id(call["generator"]) for call in pipe.calls}) == 1


def test_given_times_choose_the_key_frames() -> None:
    film, pipe = render(num_frames=16, duration_s=2, keyframe_times="0.5")
    ends = [np.asarray(call["last_image"]).mean() for call in pipe.calls[1:]]
    assert ends == [64, 240]  # the clip's frame 4 of 15, and its last
    assert film[4, 0, 0, 0] == 64
    film, pipe = render(num_frames=3, fps=2, duration_s=1, num_keyframes=9)  # more than there are frames
    assert (len(film), len(pipe.calls)) == (2, 1)
    with pytest.raises(RecipeError, match="no fps"):
        render(fps=None, duration_s=2)


@pytest.mark.parametrize(
    ("recipe", "changed", "wrong"),
    [
        ("extend", {}, []),
        ("extend", {"overlap": 5}, []),
        *(("extend", {"duration_s": seconds}, ["duration_s"]) for seconds in (0.5, 61.0)),
        *(("extend", {"overlap": overlap}, ["overlap"]) for overlap in (6, -1)),
        ("extend", {"num_frames": 1}, ["num_frames"]),
        ("extend", {"strength": 0.01}, ["strength"]),
        ("keyframes", {"num_frames": 16}, []),
        ("keyframes", {"keyframe_times": "0, 0.5, 2"}, []),
        ("keyframes", {"duration_s": 0.1}, ["duration_s"]),
        ("keyframes", {"num_keyframes": 1}, ["num_keyframes"]),
        ("keyframes", {"num_frames": 2}, ["num_frames"]),
        *(("keyframes", {"keyframe_times": times}, ["keyframe_times"]) for times in ("soon", "0, 3")),
    ],
)
def test_what_cannot_be_rendered_is_refused(recipe: str, changed: dict[str, Any], wrong: list[str]) -> None:
    arguments = {"duration_s": 2.0, "num_frames": 6, "num_inference_steps": 10, **changed}
    assert [name for name, _ in BUILT_IN[recipe].problems(arguments)] == wrong


def test_a_model_that_takes_one_image_cannot_render_between_two() -> None:
    assert BUILT_IN["keyframes"].pipeline("DynamiCrafterPipeline", {}) == "DynamiCrafterPipeline"
    for name, configs in {"WanPipeline": {}, "WanImageToVideoPipeline": {"image_dim": 1280}}.items():
        with pytest.raises(RecipeError, match="no `image` and `last_image`"):
            BUILT_IN["keyframes"].pipeline(name, {"transformer": configs})


def test_a_model_that_needs_two_images_cannot_continue_from_one() -> None:
    configs = {"transformer": {"image_dim": 1280, "pos_embed_seq_len": 514}}
    with pytest.raises(RecipeError, match="needs a last image"):
        BUILT_IN["extend"].pipeline("WanImageToVideoPipeline", configs)
    assert BUILT_IN["keyframes"].pipeline("WanImageToVideoPipeline", configs) == "WanImageToVideoPipeline"


RATE = 100  # of samples, at 10 frames in a second: ten for each frame


def segment(num_frames: int, level: float, *, samples: int | None = None, rate: int = RATE) -> Segment:
    count = num_frames * RATE // 10 if samples is None else samples
    sound = Audio(samples=np.full((1, count), level, np.float32), sample_rate=rate)
    return Segment(frames=np.zeros((num_frames, 2, 2, 3), np.uint8), audio=sound)


def joined(*parts: tuple[Segment, int, int], num_frames: int) -> list[float]:
    film = FilmSound(parts[0][0].audio, num_frames=num_frames, fps=10)
    for part, length, overlap in parts:
        film.join(part, length, overlap=overlap)
    audio = film.audio()
    assert audio is not None and audio.duration_s == num_frames / 10
    return [float(level) for level in audio.samples[0]]


def test_an_overlap_fades_and_sound_that_ends_before_its_frames_does_not_move_the_next() -> None:
    film = joined((segment(3, 1.0), 0, 0), (segment(3, 0.0), 3, 1), num_frames=5)
    assert film[:20] == [1.0] * 20
    assert film[20:30] == pytest.approx([1 - (i + 1) / 11 for i in range(10)])
    assert film[30:] == [0.0] * 20
    film = joined((segment(2, 0.5, samples=17), 0, 0), (segment(2, 0.25), 2, 0), num_frames=4)
    assert film == [0.5] * 17 + [0.0] * 3 + [0.25] * 20
    later = segment(3, 0.5).from_second(10)  # the first frame takes its sound along
    assert (len(later.frames), later.audio and later.audio.samples.shape) == (2, (1, 20))


@pytest.mark.parametrize("other", [segment(2, 0.5, rate=50), Segment(frames=segment(2, 0).frames)])
def test_segments_of_different_sound_are_refused(other: Segment) -> None:
    with pytest.raises(RenderError, match="different sound"):
        joined((segment(2, 0.5), 0, 0), (other, 2, 0), num_frames=4)
    with pytest.raises(RenderError, match="different sound"):
        joined((other, 0, 0), (segment(2, 0.5), 2, 0), num_frames=4)


class Sounding(MochiPipeline):
    """One whose segments are told apart by their sound too."""

    def __call__(self, *, num_frames: int, generator: Any, output_type: str) -> Any:
        self.num_calls += 1
        audio = np.full((1, 2, num_frames * 25), self.num_calls / 10, np.float32)
        return {"frames": np.zeros((num_frames, 2, 2, 3), np.uint8), "audio": audio, "sample_rate": 100}


Sounding.__name__ = MochiPipeline.__name__  # what follows a pipeline is found by the name of its class


def test_an_extended_film_has_the_sound_of_its_segments() -> None:
    request = Request(arguments={"num_frames": 6}, fps=4.0)
    film = extend(Sounding(), request, duration_s=3.0, overlap=0)
    assert film.audio is not None
    assert film.audio.samples.shape == (2, 300)
    assert film.audio.samples[:, [0, 149, 150, 299]] == pytest.approx(np.array([[0.1, 0.1, 0.2, 0.2]] * 2))


def test_recipes_that_cannot_keep_what_a_pipeline_returns_say_so() -> None:
    frames = np.zeros((2, 4, 4, 3), np.uint8)
    with pytest.raises(RenderError, match="returns c2w besides frames"):
        to_segment({"frames": frames, "c2w": np.eye(4)}, Sounding())
    with pytest.raises(RenderError, match="makes sound"):
        silent_frames({"frames": frames, "audio": np.zeros((1, 9)), "sample_rate": 9}, Sounding())
