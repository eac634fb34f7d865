"""Which rows are audited, what audits say, and what jobs may ask of them; no model, no row is rendered."""

from __future__ import annotations

import pytest

from framefleet import Audit
from framefleet.jobs.job.file import job_from_mapping
from framefleet.pipeline.errors import JobError
from framefleet.pipeline.render.audit.audited import Verdict, kind_of, verdict_of
from framefleet.pipeline.render.audit.schedule import MAX_KINDS, AuditSchedule
from framefleet.pipeline.request import Request

JOB = {"table": "t.csv", "output": "out", "model": "m"}


def _due(every: int, kinds: list[str]) -> list[int]:
    schedule = AuditSchedule(every)
    return [number for number, kind in enumerate(kinds) if schedule.is_due(kind)]


def test_the_first_row_of_each_kind_is_due_and_then_one_in_every() -> None:
    assert _due(4, ["a"] * 10) == [0, 4, 8]
    assert _due(3, ["a", "b", "a", "b", "a", "b", "a", "b"]) == [0, 1, 6, 7]
    assert _due(1, ["a", "b", "a"]) == [0, 1, 2]
    assert _due(0, ["a", "b", "a"]) == []


def test_kinds_beyond_the_first_are_counted_together() -> None:
    kinds = [f"kind {number}" for number in range(MAX_KINDS + 25)]
    assert _due(10, kinds) == [*range(MAX_KINDS), MAX_KINDS, MAX_KINDS + 10, MAX_KINDS + 20]


def test_a_kind_is_recipe_second_models_and_shape() -> None:
    sizes = {"height": 16, "width": 32, "num_frames": 5, "num_inference_steps": 4}
    assert kind_of(Request(arguments={**sizes, "prompt": "a"})) == "generate 5 x 16 x 32"
    named = {"image_model": {"name": "flux", "digest": "0" * 64}}
    assert kind_of(Request(arguments=sizes | named, recipe="my:own")) == "my:own flux 5 x 16 x 32"
    assert kind_of(Request()) == "generate"


@pytest.mark.parametrize(
    ("first", "second", "verdict"),
    [
        ("clip", "clip", "equal"),
        ("other", "other", "differs"),
        (None, None, "differs"),
        ("other", "clip", "unrepeatable"),
        ("other", "third", "unrepeatable"),
        (None, "clip", "unrepeatable"),
    ],
)
def test_two_plain_calls_say_whose_fault_it_is(
    first: str | None, second: str | None, verdict: Verdict
) -> None:
    assert verdict_of(("clip",), first and (first,), second and (second,)) == verdict


def test_fast_batching_has_no_audits() -> None:
    assert Audit().is_on("exact")
    assert not Audit().is_on("fast")
    assert not Audit(every=0).is_on("exact")


def test_a_job_says_how_often() -> None:
    assert job_from_mapping(JOB).audit.every == Audit().every == 1000
    assert job_from_mapping(JOB | {"audit": {"every": 0}}).audit.every == 0
    for wrong in ({"every": -1}, {"every": 1.5}, {"often": 3}, 7):
        with pytest.raises(JobError, match="audit"):
            job_from_mapping(JOB | {"audit": wrong})
    with pytest.raises(JobError, match="audit every is -1"):
        Audit(every=-1)
