"""Scores by name, and of clips of all kinds: one that fails is null and told, and never costs the clip."""

from __future__ import annotations

import math
import os
import pickle
import sys
from collections.abc import Mapping
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
