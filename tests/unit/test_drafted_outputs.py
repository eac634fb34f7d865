"""An output and that of its drafts go together: in budget, rows that Python gave, retry and repair."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import framefleet
from framefleet import JobError, Store, Summary
from framefleet.api.jobs import Job, load_job
from framefleet.cluster.driver.lock import PAUSE, STOP, DriverLock, requests_to
from framefleet.jobs.doors import Listener, Scope
from framefleet.jobs.render import render
from framefleet.jobs.render.claim import claim
from framefleet.jobs.render.command import ending_lines
from framefleet.jobs.render.render import render_job, render_rows, rows_to_retry
from framefleet.jobs.render.resolve import resolve_job
from framefleet.jobs.show.watch import Callback, Watch
from framefleet.pipeline.outputs.parts.records import FAILURE_FIELDS, RECORD_FIELDS, values_of
from framefleet.plugins.drafts.drafts import (
    check_choice,
    choose,
    draft_job,
    keep_of,
    most_kept,
    rows_of_drafts,
)
from framefleet.plugins.keep.damage import Damage
from framefleet.plugins.keep.repair import repair
from framefleet.plugins.watch.control import ask_driver
from tests.commands import command
from tests.jobs import job_values, resolved_from, with_rows, write_job, write_table
from tests.outputs import write_driver, write_part
from tests.rows import FAILURE, record
from tests.unit.test_drafts import KEEP, drafted, identified, job_with

NONE_KEPT = {"where": "sharpness > 2"}
NOBODY = "f" * 32  # a row of no table


def fail(job: Job, row_id: str) -> None:
    write_part(Store(job.output), "failures", FAILURE_FIELDS, [values_of(FAILURE) | {"row_id": row_id}], "r1")


def commit_in_full(job: Job) -> None:
    """Commit a clip of 1,234 bytes that an earlier table had."""
    with closing(resolve_job(job, Callback())) as full:
        claim(full)
    write_part(Store(job.output), "records", RECORD_FIELDS, [values_of(record(0)) | {"row_id": NOBODY}], "r1")


@pytest.mark.parametrize(("without", "is_of_drafts"), [("a2", True), ("", False)])
def test_drafts_and_rows_in_full_have_one_budget(tmp_path: Path, without: str, is_of_drafts: bool) -> None:
    job = job_with(tmp_path)
    job = job.model_copy(update={"budget": job.budget.model_copy(update={"bytes": 5 * 1234})})
    drafted(job, without=without)
    commit_in_full(job)
    ended = render_job(job, Callback(), only=None)
    assert ended.over_budget is not None and ended.exit_code == 1
    assert ended.inner["drafts"].over_budget == (ended.over_budget if is_of_drafts else None)
    assert (tmp_path / "out/chosen").exists() != is_of_drafts


def test_that_no_draft_was_kept_is_said(tmp_path: Path) -> None:
    job = job_with(tmp_path, NONE_KEPT)
    drafted(job)
    ended = render_job(job, Callback(), only=None)
    assert ended.store is not None and ended.records().num_rows == 0
    lines = ending_lines(ended, ended.store)
    assert lines[0].startswith("no draft was kept")
    assert not any("every row has a record" in line for line in lines)


def given(folder: Path, rows: list[str]) -> Job:
    values = job_values(folder / "none", folder / "out", scores=["sharpness"])
    del values["table"]
    return with_rows(values | {"draft": {"num_inference_steps": 1, "keep": KEEP}}, rows)


def claim_both(job: Job) -> None:
    for one in (job, draft_job(job)):
        with closing(resolve_job(one, Callback())) as resolved:
            claim(resolved)
        Path(one.output, "clips").mkdir(exist_ok=True)
        Path(one.output, "clips/x.mp4").touch()


def test_rows_that_python_gave_may_be_others_and_move_with_their_drafts(tmp_path: Path) -> None:
    claim_both(given(tmp_path, ["a fox"]))
    more = given(tmp_path, ["a fox", "a cat"])
    claim_both(more)
    shutil.move(tmp_path / "out", tmp_path / "moved")
    table = tmp_path / "moved/tables" / Path(more.table or "").name
    claim_both(more.model_copy(update={"output": str(tmp_path / "moved"), "table": str(table)}))
    for place in ("moved", "moved/drafts"):
        assert json.loads((tmp_path / place / "job.json").read_text())["job"]["table"] == str(table)


def test_a_folder_drafts_of_somebodys_own_has_no_part_in_tables_beside_it(tmp_path: Path) -> None:
    (tmp_path / "tables").mkdir()
    for name in ("a", "b"):
        table = write_table(tmp_path / f"tables/{name}.parquet", [{"prompt": name}])
        values = job_values(table, tmp_path / "drafts")
        with resolved_from(write_job(tmp_path / "j.yaml", values)) as resolved:
            if name == "b":
                with pytest.raises(JobError, match="clips of another job"):
                    claim(resolved)
                return
            claim(resolved)
            (tmp_path / "drafts/clips").mkdir()
            (tmp_path / "drafts/clips/x.mp4").touch()


def test_what_records_get_can_be_asked_of_drafts(tmp_path: Path) -> None:
    rows = [{"caption": f"a ball {n}", "path": "xxy"[n]} for n in range(3)]
    table = write_table(tmp_path / "t.parquet", rows)
    for keep, most in (
        ({"where": "prompt LIKE '%ball%'"}, 3),
        ({"where": "negative_prompt IS NULL AND height > 8"}, 3),
        ({"where": "source_path = 'x'"}, 3),
        ({"best": 1, "per": "source_path", "by": "sharpness"}, 2),
        ({"best": 1, "per": "negative_prompt", "by": "sharpness"}, 1),
    ):
        draft = {"num_inference_steps": 1, "keep": keep}
        values = job_values(table, tmp_path / "out", scores=["sharpness"], draft=draft)
        job = load_job(values | {"columns": {"prompt": "caption"}})
        with closing(resolve_job(draft_job(job), Callback())) as drafts:
            check_choice(drafts, keep_of(job))
        assert most_kept(job, keep_of(job)) == most


def guidance_scale(frames: Any, record: Any) -> float:
    return 1.0


def test_a_score_with_the_name_of_an_argument_is_refused(tmp_path: Path) -> None:
    table = write_table(tmp_path / "t.parquet", [{"prompt": "a"}])
    scores = ["tests.unit.test_drafted_outputs:guidance_scale"]
    with pytest.raises(JobError, match="'guidance_scale' already, which is an argument of Wan"):
        resolve_job(load_job(job_values(table, tmp_path / "out", scores=scores)), Callback())


def test_failures_of_rows_that_were_not_tried_stay_and_only_they_are_tried_again(tmp_path: Path) -> None:
    job = draft_job(job_with(tmp_path))
    rows = drafted(job_with(tmp_path), without="a2")
    waiting = rows["a2"].row_id
    for row_id in (NOBODY, waiting, rows["a1"].row_id):
        fail(job, row_id)
    render_rows(job, Callback(), Scope(only={NOBODY, rows["a1"].row_id}))
    assert rows_to_retry(job).row_ids == {waiting}  # nobody is no longer in the table
    (tmp_path / "other").mkdir()
    other = job_with(tmp_path / "other", NONE_KEPT)
    drafted(other, without="a2")
    fail(draft_job(other), "e" * 32)
    assert rows_to_retry(other).row_ids == {"e" * 32}
    ended = render_job(other, Callback(), only=rows_to_retry(other).row_ids)
    assert ended.inner["drafts"].done == 0  # a2 did not fail, and waits


def test_drafts_that_were_tried_again_are_known_in_full(tmp_path: Path) -> None:
    job = job_with(tmp_path)
    drafts = drafted(job)
    place = choose(job, keep_of(job)).place
    assert place is not None
    with closing(resolve_job(job, Callback(), place)) as full:
        expected = identified(full)["a2"].row_id
    assert [*rows_of_drafts(job, place, {drafts["a2"].row_id, drafts["a1"].row_id})] == [expected]


@pytest.mark.parametrize("is_alone", [False, True])
def test_drafts_are_repaired_and_verified_with_their_output_or_without_one(
    is_alone: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, out = job_with(tmp_path), tmp_path / "out"
    drafted(job)  # a part that names clips as no driver does
    if is_alone:
        assert framefleet.compact(str(out)).num_before == 1
        dry = command("repair", tmp_path / "job.yaml", "--dry-run")
        assert dry.exit_code == 1 and "drafts: 1 damaged part would be" in dry.stderr, dry.output
        assert "job.json" not in dry.output
    else:
        commit_in_full(job)
        for place in (job, str(out)):
            assert repair.repair(place, dry_run=True).inner["drafts"].repairs.num_set_aside == 1
        found = framefleet.verify(job.output, files=True).damages
        assert {damage.path.split("/")[0] for damage in found} >= {"drafts"}
    nothing = Summary(done=0, failed=0, elapsed_s=0.0, mean_batch=None)
    monkeypatch.setattr(repair, "render_job", lambda *_: nothing)
    damages: list[Damage] = []
    mended = repair.repair_job(job if is_alone else str(out), Callback(), found=damages.append)
    assert mended.inner["drafts"].repairs.num_set_aside == 1
    assert Store(mended.inner["drafts"].store.url_of("")).list("records") == []
    assert sum(damage.path.startswith("drafts/records/") for damage in damages) == 1
    if is_alone:
        assert not mended.is_job_back and not mended.repairs.num_found
        assert not framefleet.open_output(str(out)).is_begun and not (out / "drivers").exists()


def test_the_status_of_an_output_is_also_that_of_its_drafts(tmp_path: Path) -> None:
    job = job_with(tmp_path)
    drafted(job)
    before = framefleet.status(job.output)
    assert (before.inner["drafts"].num_done, before.num_done) == (5, 0)
    with DriverLock(Store(draft_job(job).output)):
        assert framefleet.status(job.output).is_under_way
    commit_in_full(job)
    ended = command("status", job.output, exits=0)
    assert ended.stdout.index("drafts:") < ended.stdout.index("in full:") < ended.stdout.index("1 row done")
    assert json.loads(command("status", job.output, "--json").stdout)["drafts"]["num_done"] == 5
    (tmp_path / "other").mkdir()  # whose folder of drafts is not that of a job without
    other = job_with(tmp_path / "other")
    drafted(other)
    commit_in_full(other.model_copy(update={"draft": None}))
    assert framefleet.status(other.output).inner == {}


@pytest.mark.parametrize("what", [STOP, PAUSE])
def test_the_driver_that_renders_drafts_is_asked_and_not_one_that_was_killed_elsewhere(
    what: str, tmp_path: Path
) -> None:
    job = job_with(tmp_path)
    drafted(job)
    commit_in_full(job)
    output, before = framefleet.Output.open(job.output), datetime.now(UTC) - timedelta(hours=9)
    write_driver(output.store, machine="another", host="spot", beat_at=before.isoformat(), can_pause=True)
    assert ask_driver(output, what).host == "spot", "nobody else is there, and it may come back"
    with DriverLock(Store(draft_job(job).output), can_pause=True) as lock:
        assert ask_driver(output, what).pid == os.getpid()
        assert requests_to(Store(draft_job(job).output), lock.epoch) == {what}
        assert framefleet.status(job.output).is_under_way
    found = framefleet.status(job.output)
    assert (found.driver.state, found.is_under_way) == ("silent", False)


class _Asking(Listener):
    """Has somebody ask the driver for something after the last draft, while answers are waited for."""

    def __init__(self, what: str) -> None:
        self._what = what

    @contextmanager
    def following(self, job: Job, watch: Watch) -> Iterator[None]:
        yield
        if job.output.endswith("drafts"):
            ask_driver(framefleet.Output.open(Path(job.output).parent), self._what)


@pytest.mark.parametrize("what", [STOP, PAUSE])
def test_a_job_that_is_to_stop_after_its_last_draft_renders_none_in_full_and_one_to_pause_goes_on(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    job = job_with(tmp_path, NONE_KEPT if what == PAUSE else KEEP)
    drafted(job)
    monkeypatch.setattr(render, "listeners", lambda: [_Asking(what)])
    if what == PAUSE:
        assert render_job(job, Callback()).is_none_kept
        assert "not paused: all rows of this run have ended" in caplog.text
        return
    with pytest.raises(KeyboardInterrupt):
        render_job(job, Callback())
    assert not Store(job.output).list("chosen") and not Store(job.output).list("drivers")
    assert not framefleet.status(job.output).is_under_way


def test_failures_of_drafts_are_told_beside_those_in_full(tmp_path: Path) -> None:
    job = job_with(tmp_path)
    fail(draft_job(job), "e" * 32)
    drafted(job)
    assert [row.inner for row in framefleet.failures(job.output)] == ["drafts"]
    fail(job, NOBODY)
    assert [row.inner for row in framefleet.failures(job.output)] == ["drafts", ""]
    told = command("failures", job.output).stdout
    assert "draft 3  eeee" in told and "row 3  ffff" in told
    printed = map(json.loads, command("failures", job.output, "--json").stdout.splitlines())
    assert {row["row_id"][0]: row["is_draft"] for row in printed} == {"e": True, "f": False}


def test_what_reads_rows_in_full_says_where_drafts_are_while_there_are_no_others(tmp_path: Path) -> None:
    job = job_with(tmp_path)
    drafted(job)
    for words in (("report",), ("score",), ("verify",), ("export", "to", "--format", "parquet")):
        ended = command(words[0], job.output, *words[1:], exits=2)
        assert "has drafts, but no row in full so far" in ended.stderr
        assert f"give {job.output}/drafts" in ended.stderr.replace("\n", "")
