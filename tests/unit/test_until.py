"""What a job with `until` is refused for, and what its groups, plans and marks are, without a fleet."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import framefleet
from framefleet import Store, TableError, UserError
from framefleet.api.jobs import Job, load_job
from framefleet.jobs.render.claim import claim
from framefleet.jobs.render.render import render_job
from framefleet.jobs.render.resolve import resolve_job
from framefleet.jobs.show.watch import Callback
from framefleet.pipeline.outputs.columns import refusal_fields
from framefleet.pipeline.outputs.file_step import added_columns
from framefleet.pipeline.outputs.parts.records import (
    FAILURE_FIELDS,
    NO_COLUMNS,
    RECORD_FIELDS,
    fields_named,
    record_schema,
    values_of,
)
from framefleet.pipeline.rows.tables.table_rows import IdentifiedRow
from framefleet.plugins.columns.column_lock import ColumnLock
from framefleet.plugins.forecast.plan import PlanOptions, plan_job
from framefleet.plugins.scores.clip_scores import OWN_SCORES
from framefleet.plugins.until.acceptance import PASSED, REJECTED, UNRENDERED
from framefleet.plugins.until.candidates import Candidates, SeedRow
from framefleet.plugins.until.marks import MARKS, copy_marks, marks_lock, write_marks
from tests.jobs import job_values, write_table
from tests.outputs import write_part
from tests.rows import FAILURE, record

UNTIL: dict[str, Any] = {"accepted": 2, "per": ["prompt"], "where": "sharpness > 0.4", "at_most": 6}
ROWS = [{"prompt": prompt, "style": style} for prompt, style in (("a", "x"), ("b", "x"), ("c", "y"))]


def job_with(folder: Path, rows: list[dict[str, Any]] = ROWS, *, job: Any = None, **until: Any) -> Job:
    table = write_table(folder / "t.parquet", rows)
    values = job_values(table, folder / "out", scores=["sharpness"], until=UNTIL | until)
    return load_job(values | (job or {}))


@pytest.mark.parametrize(
    ("until", "said"),
    [
        ({"accepted": 0}, "`until.accepted` is 0"),
        ({"at_most": 1}, "`until.at_most` is 1 (it must be at least `until.accepted`"),
        ({"rate": 0}, "`until.rate` is 0"),
        ({"share": {"style": {"x": 0.5, "y": 0.4}}}, "shares of 0 or more that add up to 1"),
        ({"share": {"style": {}}}, "shares of 0 or more that add up to 1"),
        ({"acepted": 2}, "did you mean `until.accepted`?"),
        ({"per": ["promt"]}, "until.per: rows have no 'promt' (did you mean 'prompt'?)"),
        ({"per": "seed"}, "until.per has 'seed'"),
        ({"share": {"styl": {"x": 1}}}, "until.share: rows have no 'styl' (did you mean 'style'?)"),
        ({"together": ["camra"]}, "until.together: rows have no 'camra'"),
        (
            {"per": [], "together": "style"},
            "until.together: row 1 has no other row with style = y in its group",
        ),
        ({"where": "sharpnes > 1"}, "until.where: there is no column 'sharpnes' (did you mean 'sharpness'?"),
        ({"where": "accepted"}, "until.where: there is no column 'accepted'"),
        ({"where": "sharpness >"}, "until.where: 'sharpness >' is not a condition"),
        (
            {"share": {"style": {"x": 1.0}}},
            "row 2: style is 'y', but until.share.style lacks it (use one of x",
        ),
        ({"share": {"style": {"x": 0.5, "y": 0.5}}}, "1 of 2 accepted clips must have prompt=a, style=y"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(
    tmp_path: Path, until: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError) as raised:
        render_job(job_with(tmp_path, **until), Callback())
    assert said in f"{raised.value.problem} ({raised.value.fix})"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("column", "cells", "keys"),
    [
        ("guidance_scale", [1.0, 5.0], ["1", "5"]),
        ("guidance_scale", [1.0, 5.5], ["1.0", "5.50"]),
        ("num_inference_steps", [1, 2], ["1", "2.0"]),
        ("is_bright", [True, False], ["true", "False"]),
        ("take", ["1", "01"], ["1", "01"]),
    ],
)
def test_shares_are_by_the_values_of_cells(
    tmp_path: Path, column: str, cells: list[Any], keys: list[str]
) -> None:
    rows = [{"prompt": f"a {cell}", column: cell} for cell in cells]
    job = job_with(tmp_path, rows, per=[], share={column: dict.fromkeys(keys, 0.5)})
    with closing(Candidates(job, Callback())) as candidates:
        assert [group.values for group in candidates.groups] == [{column: key} for key in keys]


def test_groups_whose_clips_would_be_the_same_are_refused(tmp_path: Path) -> None:
    rows = [{"prompt": "a", "style": "x", "seed": 1}, {"prompt": "a", "style": "y", "seed": 9}]
    with pytest.raises(UserError, match="rows 0 and 1 are in two groups"):
        Candidates(job_with(tmp_path, rows, per=["style"]), Callback())
    with pytest.raises(UserError, match="seed is 3"):
        Candidates(job_with(tmp_path, job={"overrides": {"seed": 3}}), Callback())
    with pytest.raises(UserError, match="use 'source_license', as the table's column 'license' is stored"):
        plan_job(
            job_with(tmp_path, [{"prompt": "a", "license": "cc"}], share={"license": {"cc": 1}}), Callback()
        )
    with pytest.raises(UserError, match="limit: the job has"):
        render_job(job_with(tmp_path), Callback(), limit=1)


def test_rows_that_are_left_out_are_listed(tmp_path: Path) -> None:
    rows = [*ROWS, {"prompt": "", "style": "x"}]
    job = job_with(tmp_path, rows, job={"on_invalid": "skip"})
    plan = plan_job(job, Callback())
    assert (plan.num_rows, plan.num_invalid) == (plan.counts.distinct + 1, 1)
    assert plan.invalid[0].startswith("row 3: prompt is ''")
    with closing(Candidates(job, Callback())) as candidates:
        commit(job, [(row, 0.9) for row in candidates.extend(0, 1)])
        for _ in range(2):
            candidates.list_left_out()
    assert framefleet.status(tmp_path / "out").num_invalid == 1
    (listed,) = pq.read_table(tmp_path / "out/invalid").to_pylist()
    assert (listed["row_index"], listed["reason"]) == (3, "prompt is '', but it is blank")


def test_a_row_with_an_odd_cell_is_left_out_of_the_rows_with_new_seeds(tmp_path: Path) -> None:
    usual = {"prompt": "a lake " * 1500, "k": 0}  # a column's type is that of its cells in the first megabyte
    lines = [json.dumps(row) for row in [*[usual] * 130, {"prompt": "rain", "k": "x"}, {"prompt": "fog"}]]
    (tmp_path / "t.jsonl").write_text("\n".join(lines))
    more = {"table": str(tmp_path / "t.jsonl"), "on_invalid": "skip"}
    with closing(Candidates(job_with(tmp_path, job=more), Callback())) as candidates:
        asked = [row for at in range(len(candidates.groups)) for row in candidates.extend(at, 1)]
        place = candidates.write_to(tmp_path / "rows.parquet", asked)
    assert pq.read_table(place).schema.names == ["prompt", "k", "seed"]
    assert pq.read_table(place)["k"].to_pylist() == [0, None]


def test_seeds_follow_those_of_the_table_in_turns_and_none_comes_twice(tmp_path: Path) -> None:
    row = {"prompt": "a", "style": None, "more": [1, 2]}
    job = job_with(tmp_path, [row | {"seed": seed} for seed in (5, 6, 2**63 - 1)])
    with closing(Candidates(job, Callback())) as candidates:
        asked = candidates.extend(0, 6)
        assert [row.seed for row in asked] == [5, 6, 2**63 - 1, 7, 0, 8]
        place = candidates.write_to(tmp_path / "rows.parquet", asked)
        table = pq.read_table(place)
        assert table["seed"].to_pylist() == [5, 6, 2**63 - 1, 7, 0, 8]
        assert table.schema.field("more").type == pa.list_(pa.int64())
        assert table["more"].to_pylist() == [[1, 2]] * 6
    with closing(resolve_job(job, Callback(), str(place))) as resolved:  # as the core identifies them
        rows_read = [
            row for first, batch in resolved.table.batches() for row in resolved.rows.read(first, batch)
        ]
    row_ids = [bytes.fromhex(row.row_id) for row in rows_read if isinstance(row, IdentifiedRow)]
    assert row_ids == [row.row_id for row in asked]


def commit(job: Job, rows: list[tuple[SeedRow, float | None]]) -> None:
    """Commit records with this sharpness, as workers would have."""
    with closing(resolve_job(job, Callback())) as resolved:
        claim(resolved)
        added = added_columns(resolved.steps, resolved.columns)
        schema = record_schema(NO_COLUMNS, added=added)
        none = dict.fromkeys(added.names) | values_of(record(0))
        own = ({"seed": row.seed, "row_id": row.row_id.hex(), "sharpness": one} for row, one in rows)
        write_part(resolved.store, "records", schema, [none | one for one in own], f"r{9 - len(rows)}")


def test_cameras_of_an_episode_have_one_seed_and_are_accepted_together(tmp_path: Path) -> None:
    rows = [
        {"prompt": f"{episode}: {look} by {camera}", "episode": episode, "camera": camera}
        for episode in (0, 1)
        for camera in ("front", "wrist")
        for look in ("night", "noon")
    ]
    job = job_with(tmp_path, rows, per=["episode"], together=["camera"], accepted=1)
    with closing(Candidates(job, Callback())) as candidates:
        asked = candidates.extend(0, 4)
        places = [row.place for row in asked]
        assert places == [0, 2, 1, 3, 0, 2, 1, 3], "each look of both cameras, and again with the next seeds"
        seeds = [row.seed for row in asked]
        assert seeds[::2] == seeds[1::2] and seeds[4:] == [seed + 1 for seed in seeds[:4]]
        group = candidates.groups[0]
        commit(job, list(zip(asked[:3], (0.9, 0.1, 0.9), strict=True)))
        candidates.read()
        assert [*group.outcomes] == [REJECTED, UNRENDERED, UNRENDERED, UNRENDERED]
        assert group.marks() == [(False, False), None, None, None], "of the second look a camera is to come"
        commit(job, list(zip(asked[3:], (0.8, 0.9, 0.9, None, None), strict=True)))
        candidates.read()
        write_marks_of(candidates, job)
        assert [*group.outcomes[1:3]] == [PASSED, PASSED]
    records = {row["row_id"]: row["accepted"] for row in framefleet.read_records(job.output).to_pylist()}
    marks = [records[row.row_id.hex()] for row in asked]
    assert marks == [False, False, True, True, False, False, False, False]
    with closing(Candidates(job, Callback())) as candidates:
        assert candidates.resume() == asked, "the next run asks for the same"


def test_a_camera_that_is_refused_leaves_out_the_others_of_its_episode(tmp_path: Path) -> None:
    rows = [
        {"prompt": f"{episode} by {camera}", "episode": episode, "camera": camera, "num_frames": num_frames}
        for episode in (0, 1)
        for camera, num_frames in (("front", 5), ("wrist", 4 + episode))
    ]
    job = job_with(tmp_path, rows, per=["episode"], together=["camera"], accepted=1)
    with closing(Candidates(job.model_copy(update={"on_invalid": "skip"}), Callback())) as candidates:
        assert [group.values for group in candidates.groups] == [{"episode": "1"}]
    job = job_with(tmp_path, rows[:2], per=["episode"], together=["camera"], accepted=1)
    with pytest.raises(
        TableError, match=r"until\.together: every group of table .*t\.parquet lacks a row by"
    ):
        render_job(job.model_copy(update={"on_invalid": "skip"}), Callback())


@pytest.mark.parametrize("on_invalid", ["fail", "skip"])
def test_an_episode_that_lacks_a_camera_takes_none_of_another(tmp_path: Path, on_invalid: str) -> None:
    """Also where rows may be left out: this one is not refused, it is not there."""
    episodes = ((0, "front"), (0, "wrist"), (1, "front"), (2, "front"), (2, "wrist"))
    rows = [{"prompt": f"{number} by {camera}", "camera": camera} for number, camera in episodes]
    job = job_with(tmp_path, rows, per=[], together=["camera"], accepted=1)
    with pytest.raises(TableError, match="row 3 has no other row with camera = wrist in its group"):
        Candidates(job.model_copy(update={"on_invalid": on_invalid}), Callback())


def refuse(candidates: Candidates, row: SeedRow) -> None:
    """Note that a judge refused to answer about a row's clip, and read that."""
    (refused,) = refusal_fields([OWN_SCORES["sharpness"]])
    with ColumnLock(candidates._store, pa.schema([OWN_SCORES["sharpness"].field]), [refused]) as lock:
        clip = {"row_id": row.row_id.hex(), "media_sha256": record(0).media_sha256}
        lock.put(clip, {refused.name: "a judge says nothing of it"})
        lock.flush()
    candidates.read()


def test_a_refused_answer_is_no_verdict_while_another_may_come(tmp_path: Path) -> None:
    both = {"scores": ["sharpness", "motion"]}
    job = job_with(tmp_path, ROWS[:1], job=both, where="sharpness > 0.5 or motion > 0.5")
    with closing(Candidates(job, Callback())) as candidates:
        asked = candidates.extend(0, 2)
        commit(job, [(row, None) for row in asked])
        refuse(candidates, asked[0])
        (group,) = candidates.groups
        assert group.marks() == [None, None]


def write_marks_of(candidates: Candidates, job: Job) -> None:
    with marks_lock(Store(job.output)) as lock:
        candidates.write_marks(lock)


def test_marks_are_joined_by_readers_and_change_with_the_condition(tmp_path: Path) -> None:
    job, out = job_with(tmp_path, ROWS[:1]), str(tmp_path / "out")
    with closing(Candidates(job, Callback())) as candidates:
        asked = candidates.extend(0, 5)
        commit(job, list(zip(asked, (0.9, 0.1, 0.8, 0.7, None), strict=True)))
        candidates.read()
        write_marks_of(candidates, job)
        (group,) = candidates.write_acceptance().groups
    assert (group.accepted, group.num_surplus, group.num_unjudged, group.is_short) == (2, 2, 1, False)

    def marks() -> list[tuple[bool | None, bool | None]]:
        table = framefleet.read_records(out, columns=["seed", "accepted", "surplus"]).sort_by("seed")
        return list(zip(table["accepted"].to_pylist(), table["surplus"].to_pylist(), strict=True))

    yes, no, surplus = (True, False), (False, False), (False, True)
    assert marks() == [yes, no, yes, surplus, surplus]
    assert framefleet.acceptance(out).groups == (group,)
    assert any("prompt=a: 2 of 2 accepted" in line for line in framefleet.status(out).notes)
    complete = "accepted: 2 of 2; 1 of 1 group complete; 5 clips rendered, 2 of them surplus"
    assert complete in framefleet.status(out).notes
    fix = "run `framefleet score` with the scores of until.where, or `framefleet judge` for answers"
    assert f"1 not judged: {fix}" in str(group)
    changed = job_with(tmp_path, ROWS[:1], where="sharpness > 0.85")
    with closing(Candidates(changed, Callback())) as candidates:
        commit(job, [(row, 0.1) for row in asked[4:]])  # the later record counts: it is judged now
        assert len(candidates.resume()) == 5
        assert [mark for group in candidates.groups for mark in group.marks()] == [yes, no, no, no, no]
        write_marks_of(candidates, job)
    assert marks() == [yes, no, no, no, no]
    parts = len(list((tmp_path / "out/scores").iterdir()))
    with closing(Candidates(changed, Callback())) as candidates:
        candidates.resume()
        write_marks_of(candidates, job)
    assert len(list((tmp_path / "out/scores").iterdir())) == parts, "nothing is new"


def test_a_clip_that_was_refused_an_answer_does_not_pass_and_delays_no_other(tmp_path: Path) -> None:
    job = job_with(tmp_path, ROWS[:1])
    with closing(Candidates(job, Callback())) as candidates:
        asked = candidates.extend(0, 3)
        commit(job, list(zip(asked, (0.9, None, 0.8), strict=True)))
        candidates.read()
        (group,) = candidates.groups
        assert group.marks() == [(True, False), None, None]
        refuse(candidates, asked[1])
        assert group.marks() == [(True, False), (False, False), (True, False)]


def test_clips_in_full_are_marked_as_their_drafts_are(tmp_path: Path) -> None:
    out, carried = Store(str(tmp_path / "out")), pa.schema([("draft_row_id", pa.string())])
    drafts = out.below("drafts")

    def record_rows(store: Store, columns: pa.Schema, rows: list[dict[str, Any]]) -> None:
        unmarked = dict.fromkeys(MARKS.names)
        values = [values_of(record(number)) | unmarked | row for number, row in enumerate(rows)]
        write_part(store, "records", record_schema(columns, added=MARKS), values)

    row_ids = [f"{number:032x}" for number in range(4)]
    record_rows(drafts, NO_COLUMNS, [{"row_id": row_id} for row_id in row_ids])
    marks: dict[str, tuple[bool, bool] | None] = dict(
        zip(row_ids, ((True, False), (False, True), None, (False, False)), strict=True)
    )
    with marks_lock(drafts) as lock:
        write_marks(drafts, lock, marks.get)
    full = [{"row_id": f"{9 - number:032x}", "draft_row_id": row_ids[number]} for number in range(3)]
    record_rows(out, carried, full)

    def in_full() -> list[Any]:
        records = framefleet.read_records(str(out.url_of("")), columns=["draft_row_id", *MARKS.names])
        return [tuple(row.values())[1:] for row in records.sort_by("draft_row_id").to_pylist()]

    copy_marks(out, "drafts", "draft_row_id")
    assert in_full() == [(True, False), (False, True), (None, None)]
    with marks_lock(drafts) as lock:
        write_marks(drafts, lock, {row_ids[0]: (False, False), row_ids[2]: (True, False)}.get)
    copy_marks(out, "drafts", "draft_row_id")
    assert in_full() == [(False, False), (False, False), (True, False)], "judged again"


def test_rows_that_failed_stay_failed_when_others_are_added(tmp_path: Path) -> None:
    job = job_with(tmp_path, ROWS[:1])
    with closing(Candidates(job, Callback())) as candidates:
        asked = candidates.extend(0, 5)
        commit(job, [(asked[0], 0.9)])
        store = Store(job.output)
        row_ids = [{"row_id": row.row_id.hex()} for row in asked]
        write_part(store, "rows", fields_named(RECORD_FIELDS, "row_id"), row_ids)
        write_part(store, "failures", FAILURE_FIELDS, [values_of(FAILURE) | one for one in row_ids[1:4]])
        commit(job, [(asked[3], 0.1), (asked[1], 0.8)])  # whatever the order, a record counts
        candidates.read()
        outcomes = bytes(candidates.groups[0].outcomes)
        assert outcomes == bytes([PASSED, PASSED, REJECTED, REJECTED, UNRENDERED])
        framefleet.add(job, ROWS[1:2])
        more, rows = candidates.take_added()
        with closing(more):
            assert [bytes(group.outcomes) for group in more.groups] == [outcomes, b""]
            assert rows == asked


def test_a_plan_is_of_the_rows_that_it_takes_at_the_rate(tmp_path: Path) -> None:
    for until, number, said in (
        ({"rate": 0.4}, "about 15", "40.0% (until.rate)"),
        ({"rate": 0.1}, "about 18", "10.0%"),
        ({}, "at least 6", "no clip is judged yet"),
    ):
        plan = plan_job(job_with(tmp_path, **until), Callback(), PlanOptions())
        lines = " ".join(part for part in plan.parts(PlanOptions()) if isinstance(part, str))
        assert (plan.to_render, said in lines) == (number, True)
        assert plan.table == str(tmp_path / "t.parquet")
