"""From drafts that are there to the rows that are rendered in full: which are kept, with which seed."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from framefleet import JobError, Store, UserError
from framefleet.api.jobs import Job, load_job, read_claim
from framefleet.jobs.render.claim import claim
from framefleet.jobs.render.render import render_job
from framefleet.jobs.render.resolve import ResolvedJob, resolve_job
from framefleet.jobs.show.watch import Callback
from framefleet.pipeline.outputs.file_step import added_columns
from framefleet.pipeline.outputs.parts.parts import PartWriter
from framefleet.pipeline.outputs.parts.records import NO_COLUMNS, record_schema, values_of
from framefleet.pipeline.rows.tables.table_rows import IdentifiedRow
from framefleet.plugins.drafts.drafts import choose, draft_job, keep_of, kept_drafts, most_kept
from framefleet.plugins.drafts.section import KeepSection
from framefleet.plugins.scores.clip_scores import OWN_SCORES
from tests.jobs import job_values, write_job, write_table
from tests.rows import record

SHARP = {"a1": 0.2, "a2": 0.9, "b1": 0.5, "b2": 0.4, "c1": 0.1}
KEEP = {"best": 1, "per": "prompt", "by": "sharpness"}


def job_with(folder: Path, keep: dict[str, Any] = KEEP, **more: Any) -> Job:
    """Rows of three prompts, some without a seed, some with other steps than the job's."""
    rows: list[dict[str, Any]] = [
        {"prompt": tag[0], "tag": tag, "num_inference_steps": 2, "guidance_scale": 1.0 + number}
        for number, tag in enumerate(SHARP)
    ]
    rows[2]["seed"] = 7
    table = write_table(folder / "t.parquet", [{"seed": None} | row for row in rows])
    draft = {"num_inference_steps": 1, "keep": keep, **more}
    values = job_values(table, folder / "out", scores=["sharpness"], draft=draft)
    return load_job(write_job(folder / "job.yaml", values))


def identified(resolved: ResolvedJob) -> dict[str, IdentifiedRow]:
    return {
        batch.column("tag")[row.index - first].as_py(): row
        for first, batch in resolved.table.batches()
        for row in resolved.rows.read(first, batch)
        if isinstance(row, IdentifiedRow)
    }


def drafted(job: Job, *, without: str = "") -> dict[str, IdentifiedRow]:
    """Commit the drafts of a job but one, as its workers would have; return its rows by tag."""
    with closing(resolve_job(draft_job(job), Callback())) as drafts:
        claim(drafts)
        rows, schema = (
            identified(drafts),
            record_schema(NO_COLUMNS, added=added_columns(drafts.steps, drafts.columns)),
        )
        writer = PartWriter(drafts.store, "records", schema, run="r1")
        for tag, row in rows.items():
            if tag == without:
                continue
            arguments = f'{{"prompt":"{tag[0]}"}}'
            one = record(0, arguments=arguments, seed=row.seed, path=f"clips/{tag}.mp4")
            writer.add(None, values_of(one) | {"row_id": row.row_id, "sharpness": SHARP[tag]})
        writer.flush()
    return rows


def test_the_best_drafts_become_a_table_with_their_seeds_and_scores(tmp_path: Path) -> None:
    job = job_with(tmp_path)
    drafts = drafted(job)
    choice = choose(job, keep_of(job))
    assert (choice.num_kept, choice.num_drafts) == (3, 5)
    assert choice.place is not None
    kept = {row["tag"]: row for row in pq.read_table(choice.place).to_pylist()}
    assert kept.keys() == {"a2", "b1", "c1"}
    assert {tag: row["seed"] for tag, row in kept.items()} == {tag: drafts[tag].seed for tag in kept}
    said = kept["a2"]
    assert (said["draft_row_id"], said["draft_sharpness"]) == (drafts["a2"].row_id, 0.9)
    assert (said["draft_path"], said["num_inference_steps"]) == ("drafts/clips/a2.mp4", 2)
    with closing(resolve_job(job, Callback(), choice.place)) as full:
        for tag, row in identified(full).items():
            request = row.request()
            assert (request.seed, request.arguments["num_inference_steps"]) == (drafts[tag].seed, 2)
            assert drafts[tag].request().arguments["num_inference_steps"] == 1
        assert {"draft_row_id", "draft_path", "draft_sharpness", "tag"} <= set(full.rows.carried.names)
    claimed = read_claim(Store(draft_job(job).output)).model_dump()["job"]
    assert (claimed["overrides"], claimed["draft"]) == (draft_job(job).overrides, None)


def test_the_same_choice_is_the_same_file_and_another_is_another(tmp_path: Path) -> None:
    job = job_with(tmp_path)
    drafted(job)
    places = [choose(job, keep_of(job)).place for _ in range(2)]
    other = job_with(tmp_path, {"where": "sharpness > 0.3"})
    places.append(choose(other, keep_of(other)).place)
    assert places[0] == places[1] != places[2]
    none = job_with(tmp_path, {"where": "sharpness > 2"})
    assert choose(none, keep_of(none)).place is None
    for keep, most in ((KEEP, 3), ({"best": 2, "by": "sharpness"}, 2), ({"where": "true"}, 5)):
        planned = job_with(tmp_path, keep)
        assert most_kept(planned, keep_of(planned)) == most


@pytest.mark.parametrize(
    ("keep", "more", "said"),
    [
        ({**KEEP, "per": "promt"}, {}, "did you mean 'prompt'?"),
        ({"where": "sharpnes > 1"}, {}, "did you mean 'sharpness'?"),
        (KEEP, {"heigth": 16}, "draft.heigth: rows have no such argument"),
        (KEEP, {"height": 17}, "draft.height is 17"),
    ],
)
def test_what_no_draft_can_be_is_told_before_one_is_rendered(
    tmp_path: Path, keep: dict[str, Any], more: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError) as raised:
        render_job(job_with(tmp_path, keep, **more), Callback())
    assert said in str(raised.value)
    assert not (tmp_path / "out").exists()
    job = job_with(tmp_path)
    write_table(tmp_path / "t.parquet", [{"prompt": "a", "draft_row_id": "x"}])
    with pytest.raises(UserError, match="draft_row_id"):
        render_job(job, Callback())


JOB: dict[str, Any] = {"table": "t.csv", "output": "s3://b/run/", "model": "m"}
SCORES = (0.1, 0.5, 0.3, 0.5, None, 0.2)  # of rows 0 to 5, whose prompts are a, b, a, b, a, b


@pytest.fixture
def drafts(tmp_path: Path) -> Store:
    store = Store(str(tmp_path))
    schema = record_schema(pa.schema([OWN_SCORES["sharpness"].field]))
    writer = PartWriter(store, "records", schema, run="r1")
    for number, score in enumerate(SCORES):
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
