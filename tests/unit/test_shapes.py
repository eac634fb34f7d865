"""Scenes are complete, clips show them within the frame, captions say them, and the measure sees them."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest

from framefleet.pipeline.outputs.frames.frames import Frames
from framefleet.plugins.demo.prepare import MAX_TOKENS
from framefleet.plugins.demo.vocabulary import COLORS, MOTIONS, SHAPES
from tools.shapes.drawing import OUTLINES, PALETTE, draw, track_of
from tools.shapes.measure import Measured, measure
from tools.shapes.scenes import (
    LANGUAGES,
    NEW_COLORS,
    NEW_SHAPES,
    Scene,
    all_scenes,
    captions,
    held_out_scenes,
    new_scenes,
    training_scenes,
)

ATTRIBUTES = ("shape", "color", "background", "motion")


def scene(shape: str = "ball", color: str = "red", background: str = "blue", motion: str = "still") -> Scene:
    return Scene(shape=shape, color=color, background=background, motion=motion)


# Few clips, but with every value in them, new ones too.
SHOWN = [*training_scenes(40, seed=3), *training_scenes(16, seed=3, among=new_scenes())]


def test_a_tenth_of_all_combinations_is_held_out_and_never_dealt_for_training() -> None:
    held_out = [scene for scene in all_scenes() if scene.held_out]
    assert 200 <= len(held_out) <= 240
    assert not set(held_out) & set(training_scenes(5000, seed=0))
    dealt = held_out_scenes(200, seed=1)
    assert len(set(dealt)) == 200 and set(dealt) <= set(held_out)
    assert dealt == held_out_scenes(200, seed=1) != held_out_scenes(200, seed=2)


def test_every_pair_of_values_is_left_for_training() -> None:
    def pairs(scenes: list[Scene]) -> set[tuple[str, str, str, str]]:
        return {
            (one, getattr(scene, one), other, getattr(scene, other))
            for scene in scenes
            for one, other in combinations(ATTRIBUTES, 2)
        }

    assert pairs([scene for scene in all_scenes() if not scene.held_out]) == pairs(all_scenes())


def test_new_scenes_have_the_new_shape_or_the_new_colour_and_all_values_can_be_drawn() -> None:
    assert all(scene.shape in NEW_SHAPES or scene.color in NEW_COLORS for scene in new_scenes())
    assert {scene.background for scene in new_scenes()} == set(COLORS)
    assert not {*NEW_SHAPES, *NEW_COLORS} & {value for s in all_scenes() for value in (s.shape, s.color)}
    for name, drawn, values in (
        ("shape", OUTLINES, {*SHAPES, *NEW_SHAPES}),
        ("color", PALETTE, {*COLORS, *NEW_COLORS}),
        ("background", PALETTE, COLORS),
        ("motion", MOTIONS, MOTIONS),
    ):
        assert {getattr(shown, name) for shown in SHOWN} == set(values) <= set(drawn)


@pytest.mark.parametrize("motion", MOTIONS)
@pytest.mark.parametrize("width", [1.0, 1.5])
def test_no_object_ever_reaches_the_edge(motion: str, width: float) -> None:
    for seed in range(50):
        track = track_of(motion, seed=seed, num_frames=9, width=width)
        for place, length in ((track.x, width), (track.y, 1.0)):
            assert (place - track.radius).min() > 0.02
            assert (place + track.radius).max() < length - 0.02


def test_equal_seeds_draw_equal_frames_also_longer_and_larger() -> None:
    small, again, other = (draw(scene(motion="left"), seed=seed) for seed in (1, 1, 2))
    assert small.shape == (9, 64, 64, 3)
    assert np.array_equal(small, again) and not np.array_equal(small, other)
    large = draw(scene(motion="left"), seed=1, num_frames=17, height=128, width=128)[::2]
    halved = large.reshape(9, 64, 2, 64, 2, 3).mean(axis=(2, 4))
    assert np.abs(halved - small).mean() < 1


def test_captions_name_what_is_shown_within_63_bytes_and_none_is_of_two_scenes() -> None:
    owners: dict[str, Scene] = {}
    for number, shown in enumerate((*all_scenes(), *new_scenes())):
        for seed in (number, number + 1):
            said = captions(shown, seed=seed)
            assert tuple(said) == LANGUAGES
            assert f"{shown.color} " in said["en"].lower() and f" {shown.background}" in said["en"]
            for text in said.values():
                assert len(text.encode()) < MAX_TOKENS and owners.setdefault(text, shown) == shown


@pytest.mark.parametrize("size", [(9, 64, 64), (5, 64, 96), (17, 96, 96), (9, 64, 256), (9, 128, 64)])
def test_drawn_clips_measure_as_what_was_drawn(size: tuple[int, int, int]) -> None:
    num_frames, height, width = size
    for seed, shown in enumerate(SHOWN if size == (9, 64, 64) else SHOWN[::8]):
        frames = draw(shown, seed=seed, num_frames=num_frames, height=height, width=width)
        assert measure(frames) == Measured(
            shape=shown.shape, color=shown.color, background=shown.background, motion=shown.motion
        )


BARE = np.full((9, 64, 64, 3), PALETTE["blue"], np.uint8)
BALL = draw(scene(), seed=1)


def of_grey() -> Frames:
    grey = BARE.copy()
    grey[:, 28:36, 8:56] = (128, 128, 128)
    return grey


def vanishing() -> Frames:
    frames = BALL.copy()
    frames[5] = PALETTE["blue"]
    return frames


def changing() -> Frames:
    frames = draw(scene("square"), seed=1)
    frames[1::2] = BALL[1::2]
    return frames


@pytest.mark.parametrize(
    ("frames", "shape", "color", "background", "motion"),
    [
        (BARE, None, None, "blue", None),
        (np.random.default_rng(0).integers(0, 256, (9, 64, 64, 3), np.uint8), *[None] * 4),
        (np.broadcast_to(np.linspace(0, 255, 64).astype(np.uint8)[:, None], BARE.shape), *[None] * 4),
        (of_grey(), None, None, "blue", "still"),
        (np.concatenate([BALL, BALL[:, :, ::-1]], axis=2), None, "red", "blue", "still"),
        (vanishing(), None, None, "blue", None),
        (changing(), None, "red", "blue", "still"),
        (draw(scene("star"), seed=1)[:1], "star", "red", "blue", None),
    ],
)
def test_what_is_not_clearly_there_is_not_seen(
    frames: Frames, shape: Any, color: Any, background: Any, motion: Any
) -> None:
    seen = measure(frames)
    assert seen == Measured(shape=shape, color=color, background=background, motion=motion)


def test_a_second_colour_is_no_colour() -> None:
    later, beside = draw(scene(), seed=1), draw(scene(), seed=1)
    later[5:] = draw(scene(color="yellow"), seed=1)[5:]
    columns = np.flatnonzero((beside[0] != PALETTE["blue"]).any(axis=(0, 2)))
    half = int(columns.mean())
    beside[:, :, half:] = draw(scene(color="green"), seed=1)[:, :, half:]
    two = np.concatenate([draw(scene(), seed=1), draw(scene(color="yellow"), seed=2)], axis=2)
    assert [measure(frames).color for frames in (later, beside, two)] == [None] * 3


def test_an_object_that_jumps_or_slants_has_no_motion() -> None:
    leaping = np.roll(draw(scene(), seed=1), -10, axis=2)
    leaping[4:] = np.roll(leaping[4:], 15, axis=2)
    jumping = np.stack([draw(scene(), seed=seed)[0] for seed in range(9)])
    slanting = np.full((9, 64, 64, 3), PALETTE["blue"], np.uint8)
    for index in range(9):
        slanting[index, 5 + 3 * index :, 5 + 3 * index :][:20, :20] = PALETTE["red"]
    assert [measure(frames).motion for frames in (leaping, jumping, slanting)] == [None] * 3
