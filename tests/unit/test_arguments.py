"""What programs give, as arguments or as values of jobs: taken, or refused with the value and the fix."""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Callable
from pathlib import Path
from types import FunctionType, MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy import float32, int64

import framefleet
from framefleet.jobs.job.file import load_job
from framefleet.pipeline.errors import FramefleetError, JobError, ModelError, UserError
from framefleet.pipeline.guards.arguments import check_arguments
from framefleet.pipeline.model.ip_adapter import ip_adapter_of
from tests.each import check_each


def takes(*, rows: int = 1, share: float | None = None, output: str = "") -> int:
    return rows


CASES: list[tuple[Callable[[], object], str]] = [
    (lambda: framefleet.pack("out", "to", rows=0), "pack: rows is 0"),
    (lambda: framefleet.pack("out", "to", row_ids="0a1b"), "pack: row_ids is '0a1b'"),
    (lambda: framefleet.verify("out", sample=0), "verify: sample is 0"),
    (lambda: framefleet.plan("job.yaml", limit="3"), "plan: limit is '3', of type str"),  # type: ignore[arg-type]
    (lambda: framefleet.plan("job.yaml", limit=-5), "plan: limit is -5"),
    (lambda: framefleet.score("out", "sharpness"), "score: scores is 'sharpness'"),
    (lambda: framefleet.score("out", len), "score: scores is <built-in"),  # type: ignore[arg-type]
    (lambda: framefleet.score("out", {"name": "x"}), "score: scores is {"),  # type: ignore[arg-type]
    (lambda: framefleet.read_records("out", where=3), "read_records: where is 3"),  # type: ignore[arg-type]
    (lambda: framefleet.read_records("out", columns="prompt"), "read_records: columns is 'prompt'"),
    (lambda: framefleet.export("out", "to", format="hf", columns="prompt"), "export: columns is 'prompt'"),
    (lambda: framefleet.export("out", "to", format="hf", picks=3), "export: picks is 3"),  # type: ignore[arg-type]
    (lambda: framefleet.load_model("m", dtype=3), "dtype is 3"),  # type: ignore[arg-type]
    (lambda: framefleet.retry("job.yaml", error_types="OutOfMemory"), "retry: error_types is"),
    (lambda: framefleet.status("out", storage_options="key"), "status: storage_options"),  # type: ignore[arg-type]
    (lambda: framefleet.Output("out"), "store is 'out', of type str"),  # type: ignore[arg-type]
    (lambda: framefleet.Store(3), "Store: url is 3"),  # type: ignore[arg-type]
    (lambda: framefleet.Inputs("/pictures"), "Inputs: roots is '/pictures'"),
    (lambda: framefleet.Batching(max_rows="8"), "Batching: max_rows is '8'"),  # type: ignore[arg-type]
    (lambda: framefleet.Audit(every="x"), "Audit: every is 'x'"),  # type: ignore[arg-type]
]


def test_a_value_of_another_type_is_refused_before_anything_is_done() -> None:
    def check(case: tuple[Callable[[], object], str]) -> None:
        with pytest.raises(UserError) as refusal:
            case[0]()
        assert refusal.value.problem.startswith(case[1]) and refusal.value.fix, refusal.value

    check_each(CASES, check)
    with pytest.raises(UserError) as refusal:
        framefleet.score("out", "sharpness")
    assert refusal.value.fix == "it must be a list (each a text or a mapping)"


def test_numbers_of_numpy_and_paths_are_taken(tmp_path: Any) -> None:
    assert check_arguments(takes)(rows=int64(3), share=float32(0.5), output=tmp_path) == 3
    for wrong in ({"rows": True}, {"rows": 2.0}, {"share": "1"}):
        with pytest.raises(UserError, match=r"takes: (rows|share) is"):
            check_arguments(takes)(**wrong)


def test_public_functions_keep_their_signature_and_can_be_sent_to_other_processes() -> None:
    values = [getattr(framefleet, name) for name in framefleet.__all__]
    functions = [one for one in values if isinstance(one, FunctionType)]
    assert len(functions) > 20
    for function in functions:
        assert pickle.loads(pickle.dumps(function)) is function
        assert inspect.signature(function) == inspect.signature(inspect.unwrap(function))


def test_any_mapping_is_taken_and_a_value_of_another_kind_refused_by_its_place() -> None:
    values = {"path": "adapter", "weights": "ip.safetensors", "image_encoder": "encoder"}
    assert ip_adapter_of(MappingProxyType(values)) == ip_adapter_of(values)
    with pytest.raises(ModelError, match=r"ip_adapter\.scale is 'much', and must be"):
        ip_adapter_of(values | {"scale": "much"})


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
