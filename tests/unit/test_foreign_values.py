"""What notebooks have at hand stands in jobs as their files would have it, or is refused by its key."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import framefleet
from framefleet.jobs.job.file import load_job
from framefleet.jobs.job.schema import job_schema
from framefleet.pipeline.errors import FramefleetError, JobError

JOB = {"output": "out", "model": "m"}


@pytest.mark.parametrize(
    ("sweep", "as_lists"),
    [
        ({"prompt": "a", "seed": np.arange(3)}, {"prompt": "a", "seed": [0, 1, 2]}),
        ({"prompt": pd.Series(["a", "b"])}, {"prompt": ["a", "b"]}),
        ({"prompt": pd.Index(["a"]), "seed": np.int64(3)}, {"prompt": ["a"], "seed": 3}),
    ],
)
def test_arrays_are_lists(sweep: dict[str, Any], as_lists: dict[str, Any]) -> None:
    assert load_job({**JOB, "sweep": sweep}) == load_job({**JOB, "sweep": as_lists})


@pytest.mark.parametrize("value", [(one for one in "ab"), {"a": 1}.keys(), pd.DataFrame({"a": [1, 2]})])
@pytest.mark.parametrize("key", ["prompt", "api_key"])
def test_what_no_file_can_hold_is_refused_by_its_key(key: str, value: object) -> None:
    with pytest.raises(JobError, match=f"sweep.{key}") as refusal:
        load_job({**JOB, "sweep": {"prompt": "a", key: value}})
    assert refusal.value.fix


@pytest.mark.parametrize(
    ("call", "problem", "fix"),
    [
        (lambda: framefleet.demo(["a"], seeds=0), "seeds is 0", "at least 1"),
        (lambda: framefleet.plan(JOB, table=pd.Series(["a"])), "pandas.Series", 'to_frame("prompt")'),
        (lambda: framefleet.plan(JOB, table=[{"prompt": "a", "seed": 2**63}]), "seed is 92", "2**63 - 1"),
        (
            lambda: framefleet.plan(JOB | {"output": "a" * 300}, table=["a"]),
            "output aaa.* too long",
            "another",
        ),
        (lambda: job_schema("nope"), "nope", "train"),
    ],
)
def test_refusals_say_what_would_do(
    call: Callable[[], object], problem: str, fix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FramefleetError, match=problem) as refusal:
        call()
    assert fix in refusal.value.fix
    assert not [*tmp_path.iterdir()]
