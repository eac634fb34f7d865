"""Arguments of functions that programs call: another type is refused with the name, the value and the fix."""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Callable
from types import FunctionType
from typing import Any

import pytest
from numpy import float32, int64

import framefleet
from framefleet.pipeline.errors import UserError
from framefleet.pipeline.guards.arguments import check_arguments
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
