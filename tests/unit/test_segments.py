"""Sound is joined as frames are: at the place of its frames, faded where they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from framefleet import RenderError, Request
from framefleet.pipeline.outputs.frames.result import Audio
from framefleet.plugins.recipes.extend import FilmSound, Segment, extend, silent_frames, to_segment

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


class MochiPipeline:
    """A pipeline whose segments are told apart by their sound too."""

    config: dict[str, Any] = {}  # noqa: RUF012  # read only
    components: dict[str, Any] = {}  # noqa: RUF012

    def __init__(self) -> None:
        self.num_calls = 0

    def __call__(self, *, num_frames: int, generator: Any, output_type: str) -> dict[str, Any]:
        self.num_calls += 1
        audio = np.full((1, 2, num_frames * 25), self.num_calls / 10, np.float32)
        return {"frames": np.zeros((num_frames, 2, 2, 3), np.uint8), "audio": audio, "sample_rate": 100}


def test_an_extended_film_has_the_sound_of_its_segments() -> None:
    request = Request(arguments={"num_frames": 6}, fps=4.0)
    film = extend(MochiPipeline(), request, duration_s=3.0, overlap=0)
    assert film.audio is not None
    assert film.audio.samples.shape == (2, 300)
    assert film.audio.samples[:, [0, 149, 150, 299]] == pytest.approx(np.array([[0.1, 0.1, 0.2, 0.2]] * 2))


def test_recipes_that_cannot_keep_what_a_pipeline_returns_say_so() -> None:
    frames = np.zeros((2, 4, 4, 3), np.uint8)
    with pytest.raises(RenderError, match="returns c2w besides frames"):
        to_segment({"frames": frames, "c2w": np.eye(4)}, MochiPipeline())
    with pytest.raises(RenderError, match="makes sound"):
        silent_frames({"frames": frames, "audio": np.zeros((1, 9)), "sample_rate": 9}, MochiPipeline())
