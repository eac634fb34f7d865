"""Which drafts are kept: the best of each group, those above a threshold, the same ones every time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from framefleet import JobError, Store, UserError
from framefleet.jobs.job.file import load_job
from framefleet.pipeline.outputs.parts.parts import PartWriter
from framefleet.pipeline.outputs.parts.records import record_schema, values_of
from framefleet.plugins.drafts.drafts import draft_job, keep_of, kept_drafts
from framefleet.plugins.drafts.section import KeepSection
from framefleet.plugins.scores.clip_scores import OWN_SCORES
from tests.rows import record

JOB: dict[str, Any] = {"table": "t.csv", "output": "s3://b/run/", "model": "m"}
SHARP = (0.1, 0.5, 0.3, 0.5, None, 0.2)  # of rows 0 to 5, whose prompts are a, b, a, b, a, b


@pytest.fixture
def drafts(tmp_path: Path) -> Store:
    store = Store(str(tmp_path))
    schema = record_schema(pa.schema([OWN_SCORES["sharpness"].field]))
    writer = PartWriter(store, "records", schema, run="r1")
    for number, score in enumerate(SHARP):
        one = record(number, arguments=f'{{"prompt":"{"ab"[number % 2]}"}}', path=f"clips/{number}")
        writer.add(None, values_of(one) | {"sharpness": score})
    writer.flush()
    return store


def kept(store: Store, *, wanted: range = range(6), **keep: Any) -> list[int]:
    found = kept_drafts(store, KeepSection(**keep), ["sharpness"], lambda row_id: int(row_id, 16) in wanted)
    return sorted(int(row_id, 16) for row_id in found)


def test_the_best_of_each_prompt_are_kept_and_ties_fall_the_same_way(drafts: Store) -> None:
    assert kept(drafts, best=1, per=["prompt"], by="sharpness") == [1, 2]
    assert kept(drafts, best=2, per=["prompt"], by="sharpness") == [0, 1, 2, 3]
    assert kept(drafts, best=1, by="sharpness") == [1]
    assert kept(drafts, wanted=range(2, 6), best=1, per=["prompt"], by="sharpness") == [2, 3]  # of the table
    found = kept_drafts(drafts, KeepSection(best=1, by="sharpness"), ["sharpness"], lambda row_id: True)
    assert [(draft.path, draft.values) for draft in found.values()] == [("clips/1", {"sharpness": 0.5})]


def test_a_minus_takes_the_lowest_and_a_draft_without_the_score_comes_last(drafts: Store) -> None:
    assert kept(drafts, best=1, per=["prompt"], by="-sharpness") == [0, 5]
    assert kept(drafts, best=9, per=["prompt"], by="-sharpness") == [0, 1, 2, 3, 4, 5]


def test_a_condition_is_asked_before_the_best_are_taken(drafts: Store) -> None:
    assert kept(drafts, where="sharpness > 0.25") == [1, 2, 3]
    assert kept(drafts, best=1, by="-sharpness", where="sharpness > 0.25") == [2]
    with pytest.raises(JobError, match="sharpness"):
        kept(drafts, where="sharpnes > 0.25")


def test_the_job_of_drafts_is_the_same_with_other_arguments_below_its_output() -> None:
    keep = {"best": 2, "per": "prompt", "by": "-flicker"}
    job = load_job(JOB | {"draft": {"num_inference_steps": 4, "height": 32, "keep": keep}})
    drafts = draft_job(job)
    assert drafts.output == "s3://b/run/drafts"
    assert drafts.overrides == {"num_inference_steps": 4, "height": 32}
    assert drafts.scores.root == list(OWN_SCORES)
    assert drafts.draft is None
    assert str(keep_of(job)) == "the best 2 of each prompt by -flicker"
    own = {"scores": ["my_scores:colour"], "draft": {"keep": {"best": 1, "by": "colour"}}}
    assert keep_of(load_job(JOB | own)).score == "colour"


@pytest.mark.parametrize(
    ("draft", "said"),
    [
        ({"num_inference_steps": 4}, "the job has no `draft.keep`"),
        ({"keep": {}}, "it must be given with `best` and `by`, or with `where`"),
        ({"keep": {"best": 2}}, "with both `best` and `by`"),
        ({"keep": {"best": 0, "by": "motion"}}, "`draft.keep.best` is 0"),
        ({"keep": {"best": 1, "by": "sharpnes"}}, "did you mean 'sharpness'?"),
        ({"keep": {"bset": 1, "by": "motion"}}, "unknown key `draft.keep.bset`"),
        ({"height": {"a": 1}, "keep": {"where": "true"}}, "`draft.height` is"),
    ],
)
def test_a_draft_section_that_says_too_little_is_refused(draft: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as raised:
        keep_of(load_job(JOB | {"draft": draft}))
    assert said in str(raised.value)
