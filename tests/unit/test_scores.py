"""Scores by name, and of clips of all kinds: one that fails is null and told, and never costs the clip."""

from __future__ import annotations

import math
import os
import pickle
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from framefleet.jobs.job.columns import open_columns, step_columns
from framefleet.jobs.job.file import load_job
from framefleet.pipeline.errors import UserError
from framefleet.pipeline.outputs.columns import ClipColumn, fitting_cells, measure
from framefleet.pipeline.outputs.frames.frames import Frames
from framefleet.pipeline.outputs.parts.records import values_of
from framefleet.plugins.scores import clip_scores
from framefleet.plugins.scores.clip_scores import OWN_SCORES
from framefleet.plugins.scores.measures import (
    flicker,
    is_black,
    is_static,
    motion,
    num_torn_frames,
    sharpness,
)
from framefleet.plugins.scores.section import ScoresSection
from tests.rows import RECORD

JOB = {"table": "t.csv", "output": "out", "model": "m"}
FRAMES = np.random.default_rng(1).integers(0, 256, (4, 16, 16, 3), np.uint8)
VALUES = values_of(replace(RECORD, arguments='{"prompt":"一只猫","guidance_scale":4.5}'))


def prompt_length(frames: Frames, record: Mapping[str, Any]) -> float:
    return len(record["prompt"]) + record["guidance_scale"] + record["seed"] * 0


def half(frames: Frames, record: Mapping[str, Any]) -> Any:
    return np.float32(0.5)


def failing(frames: Frames, record: Mapping[str, Any]) -> float:
    raise KeyError("colour")


def infinite(frames: Frames, record: Mapping[str, Any]) -> float:
    return math.inf


def wordy(frames: Frames, record: Mapping[str, Any]) -> Any:
    return "good"


def spoiling(frames: Frames, record: Mapping[str, Any]) -> float:
    frames[0] = 0
    return 1.0


def leaving(frames: Frames, record: Mapping[str, Any]) -> float:
    sys.exit("bye")


def crashing(frames: Frames, record: Mapping[str, Any]) -> float:
    os.abort()


def process(frames: Frames, record: Mapping[str, Any]) -> float:
    return os.getpid()


def open_scores(names: list[str]) -> list[ClipColumn]:
    return clip_scores.open_scores(ScoresSection(list[Any](names)))


def named(*functions: str) -> list[str]:
    return [f"tests.unit.test_scores:{name}" for name in functions]


def test_a_function_gets_frames_and_what_the_record_says_with_its_arguments() -> None:
    scored = measure(open_scores(named("prompt_length", "half")), FRAMES, VALUES)
    assert scored.values == {"prompt_length": 7.5, "half": 0.5}
    assert not scored.errors


def test_a_function_that_fails_gives_null_and_says_why() -> None:
    scores = open_scores(["sharpness", *named("failing", "infinite", "wordy", "spoiling")])
    scored = measure(scores, FRAMES, VALUES)
    assert scored.values["sharpness"] == OWN_SCORES["sharpness"].function(FRAMES, {})
    assert {name for name, value in scored.values.items() if value is None} == set(scored.errors)
    assert scored.errors["failing"] == "KeyError: 'colour'"
    assert "str, not a number" in scored.errors["wordy"]
    assert "inf" in scored.errors["infinite"]
    assert "read-only" in scored.errors["spoiling"]


def test_a_function_that_exits_or_crashes_costs_its_score_alone() -> None:
    scored = measure(open_scores([*named("leaving", "crashing", "half")]), FRAMES, VALUES)
    assert scored.values == {"leaving": None, "crashing": None, "half": 0.5}
    assert scored.errors == {
        "leaving": "SystemExit: bye",
        "crashing": "the clip cannot be measured: the process that read it crashed (SIGABRT)",
    }


def test_a_function_is_neither_called_nor_imported_where_rows_are_rendered() -> None:
    score = pickle.loads(pickle.dumps(open_scores(named("process"))))[0]
    assert measure([score], FRAMES, VALUES).values["process"] not in (None, os.getpid())


class Scarce(np.ndarray[Any, Any]):
    """Frames that memory does not hold a second time."""

    def __getitem__(self, index: Any) -> Any:
        raise MemoryError


def test_a_clip_that_memory_holds_only_once_has_no_scores() -> None:
    scored = measure(open_scores(["sharpness", "motion"]), FRAMES.view(Scarce), VALUES)
    assert scored.values == {"sharpness": None, "motion": None}
    assert scored.errors == {"sharpness": "MemoryError: ", "motion": "MemoryError: "}


def test_every_kind_of_clip_has_defined_scores() -> None:
    scores = list(OWN_SCORES.values())
    kinds = {
        "image": FRAMES[:1],
        "alpha": np.concatenate([FRAMES, FRAMES[..., :1]], axis=-1),
        "light": FRAMES.astype(np.float32) / 100 - 0.5,
        "nan": np.full((3, 8, 8, 3), np.nan, np.float32),
        "black": np.zeros((3, 8, 8, 3), np.uint8),
        "transparent": np.dstack([np.full((8, 8, 3), 255, np.uint8), np.zeros((8, 8), np.uint8)])[None],
    }
    found = {kind: measure(scores, frames, VALUES) for kind, frames in kinds.items()}
    assert not any(scored.errors for scored in found.values())
    assert found["image"].values["motion"] is None
    black = {"sharpness": 0.0, "motion": 0.0, "flicker": 0.0, "is_black": True, "is_static": True}
    assert found["black"].values == found["nan"].values == black | {"num_torn_frames": 0}
    assert found["transparent"].values["is_black"]
    assert set(measure(scores, None, VALUES).values.values()) == {None}  # sound alone


def test_columns_take_only_what_they_can_hold() -> None:
    scores = list(OWN_SCORES.values())
    fields = pa.schema([score.field for score in scores])
    assert fields.field("num_torn_frames").type == pa.int64()
    cells = fitting_cells(fields, {"sharpness": 1, "is_black": "yes", "num_torn_frames": 2**70, "other": 1})
    assert cells == dict.fromkeys(OWN_SCORES) | {"sharpness": 1.0}


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        (["sharpnes"], "did you mean 'sharpness'?"),
        (["similarity"], "write it as `{similarity: /models/clip}`"),
        (named("missing"), "has no function missing"),
        (["no_such_module:f"], "score 'no_such_module:f': cannot import"),
        (["textwrap:dedent"], "does not take (frames, record)"),
        (["motion", "motion"], "two scores would have the column 'motion'"),
        ([{"similarity": "/no/such"}], "is not the folder of a CLIP model"),
        ([{"similarity": "/a"}, {"similarity": "/b"}], "two models are set for 'similarity'"),
    ],
)
def test_what_is_no_score_is_told_with_its_fix(scores: list[Any], said: str) -> None:
    with pytest.raises(UserError) as raised:
        open_columns(load_job(JOB | {"scores": scores}))
    assert said in str(raised.value)


def test_a_job_names_the_columns_of_its_scores() -> None:
    job = load_job(JOB | {"scores": ["motion", "my.scores:colour", {"similarity": "/models/clip"}]})
    assert step_columns(job) == ["motion", "colour", "similarity"]


HEIGHT, WIDTH = 32, 48


def grey(*levels: int) -> Frames:
    """A frame of one colour for each level."""
    return np.stack([np.full((HEIGHT, WIDTH, 3), level, np.uint8) for level in levels])


def bars(shifts: list[int]) -> Frames:
    """Upright bars, 16 pixels wide, moved to the right."""
    row = (np.arange(WIDTH) // 16 % 2 * 255).astype(np.uint8)
    frame = np.repeat(np.tile(row, (HEIGHT, 1))[..., None], 3, axis=-1)
    lying = np.transpose(np.tile(row[:HEIGHT], (WIDTH, 1)), (1, 0))[..., None]
    return np.stack([np.maximum(np.roll(frame, shift, axis=1), lying) for shift in shifts])


def blurred(frames: Frames, times: int) -> Frames:
    soft = frames.astype(np.float32)
    for _ in range(times):
        for axis in (1, 2):
            soft = (np.roll(soft, 1, axis) + soft + np.roll(soft, -1, axis)) / 3
    return soft.round().astype(np.uint8)


def test_sharpness_falls_with_every_blur_and_does_not_depend_on_contrast() -> None:
    clip = bars([0, 4, 8])
    found = [sharpness(blurred(clip, times)) for times in (0, 1, 3, 9)]
    assert found == sorted(found, reverse=True)
    assert found[0] > 0.7 > 0.4 > found[-1]
    assert sharpness(clip // 5) == pytest.approx(found[0], abs=0.01)


def test_a_frame_unlike_both_of_its_neighbours_is_torn() -> None:
    torn = bars([0, 1, 2, 3, 4, 5])
    assert num_torn_frames(torn) == 0
    torn[2] = 255 - torn[2]
    assert num_torn_frames(torn) == 1
    assert num_torn_frames(grey(0, 0, 200, 200)) == 0  # a cut
    assert num_torn_frames(grey(0, 60, 120, 180)) == 0  # a fade


DOT = np.zeros((3, 1, 1, 3), np.uint8)
DUST = grey(0)
DUST[0, 0, :20] = 255  # 1.3 %


@pytest.mark.parametrize(
    ("measure", "clip", "value"),
    [
        (sharpness, grey(0, 128, 255), 0),
        (sharpness, DOT, 0),
        (motion, grey(0, 51, 102), 0.2),
        (motion, grey(9, 9), 0),
        (motion, grey(80), None),  # of one frame
        (motion, DOT, 0),
        (flicker, grey(0, 255, 0, 255), 1),
        (flicker, grey(0, 51, 102, 153), 0),  # a fade
        (flicker, grey(80, 90), None),
        (flicker, DOT, 0),
        (is_black, grey(0, 25, 10), True),
        (is_black, grey(0, 0, 200), False),
        (is_black, DUST, True),
        (is_static, grey(80, 80, 80), True),
        (is_static, grey(80, 80, 81), False),
        (is_static, bars([0, 0, 1]), False),
        (is_static, grey(80), None),
        (is_static, DOT, True),
        (num_torn_frames, grey(80, 90), None),
    ],
)
def test_clips_whose_measure_is_known(measure: Callable[[Frames], object], clip: Frames, value: Any) -> None:
    found = measure(clip)
    assert found is None if value is None else found == pytest.approx(value, abs=1e-6)
