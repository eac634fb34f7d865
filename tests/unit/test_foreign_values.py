"""What notebooks have at hand stands in jobs as their files would have it, or is refused by its key."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import framefleet
from framefleet.jobs.job.file import load_job
from framefleet.pipeline.errors import FramefleetError, JobError

JOB = {"output": "out", "model": "m"}


def test_arrays_are_lists() -> None:
    arrays = {"prompt": pd.Series(["a", "b"]), "seed": np.arange(3), "tag": pd.Index(["a"]), "n": np.int64(3)}
    lists = {"prompt": ["a", "b"], "seed": [0, 1, 2], "tag": ["a"], "n": 3}
    assert load_job({**JOB, "sweep": arrays}) == load_job({**JOB, "sweep": lists})


@pytest.mark.parametrize("key", ["prompt", "api_key"])
def test_what_no_file_can_hold_is_refused_by_its_key(key: str) -> None:
    for value in ((one for one in "ab"), {"a": 1}.keys(), pd.DataFrame({"a": [1, 2]})):
        with pytest.raises(JobError, match=f"sweep.{key}") as refusal:
            framefleet.plan({**JOB, "sweep": {"prompt": "a", key: value}})
        assert refusal.value.fix


@pytest.mark.parametrize(
    ("call", "problem", "fix"),
    [
        (lambda: framefleet.demo(["a"], seeds=0), "seeds is 0", "at least 1"),
        (lambda: framefleet.plan(JOB, table=pd.Series(["a"])), "pandas.Series", 'to_frame("prompt")'),
        (lambda: framefleet.plan(JOB, table=[{"prompt": "a", "seed": 2**63}]), "seed is 92", "2**63 - 1"),
        (lambda: framefleet.plan(JOB | {"output": "a" * 300}, table=["a"]), "output aaa.* too long", "anoth"),
        (lambda: framefleet.job_schema("nope"), "nope", "train"),
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
