"""Rows that are added to a job: checked as any table, rendered once, by a run that goes on or by the next."""

from __future__ import annotations

import logging
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

import framefleet
from framefleet import FramefleetError, Store, Summary, TableError
from framefleet.cluster.driver import driver
from framefleet.cluster.driver.lock import Holder
from framefleet.cluster.driver.stop import Stop
from framefleet.jobs.job.file import load_job
from framefleet.jobs.render.claim import claim
from framefleet.jobs.render.python_table import stored_rows
from framefleet.jobs.render.resolve import resolve_job
from framefleet.jobs.render.row_parts import Additions, recall_survey, write_rows
from framefleet.jobs.show.watch import Callback
from framefleet.pipeline.outputs.parts.seals import epoch_path
from framefleet.pipeline.rows.tables.index import RowIndex
from framefleet.pipeline.rows.tables.row_cells import ODD_CELLS
from framefleet.plugins.watch.status import driver_of
from tests.commands import command
from tests.driving import begun, drive, hello_of, left_of
from tests.jobs import job_values, prompt_rows, records_of, resolved_from, write_job, write_table
from tests.unit.test_drain import Workers

ROWS = prompt_rows(9, num_inference_steps=2)
LATER = [*ROWS[7:], ROWS[0]]  # two are new, one is not


@pytest.fixture
def values(tmp_path: Path) -> dict[str, Any]:
    return job_values(write_table(tmp_path / "t.parquet", ROWS[:7]), tmp_path / "out")


def run(values: Mapping[str, Any], at: Mapping[int, Callable[[], object]] | None = None) -> Summary | None:
    """Render the job by workers that finish a row at each turn. Return None where it was interrupted."""
    resolved = resolve_job(load_job(values), Callback())
    with closing(resolved), begun(resolved, beat_s=0.05) as (survey, index, lock):
        claim(resolved)
        write_rows(resolved, index, lock)
        lock.promise(resolved.added)
        run = replace(left_of(resolved, index, lock), more=Additions(resolved, survey, index, lock).take)

        def then(what: Callable[[], object]) -> None:
            what()
            lock._look()  # as its next beat does

        turns = {turn: partial(then, what) for turn, what in (at or {}).items()}
        workers = Workers(resolved.store, hello_of(resolved), at=turns)
        try:
            with Stop() as stop:
                return drive(run, workers, workers.seen.append, stop)
        except KeyboardInterrupt:
            return None


def check_whole(values: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
    """Each distinct row has one record, and rows/ has a line for each."""
    records = records_of(values["output"])
    assert sorted(record["tag"] for record in records) == [row["tag"] for row in ROWS]
    assert len({record["row_id"] for record in records}) == len(ROWS)
    output = framefleet.open_output(values["output"])
    lines = [line for table in output.rows() for line in table.to_pylist()]
    assert [line["tag"] for line in lines] == [row["tag"] for row in rows]
    assert [line["row_index"] for line in lines] == [*range(len(rows))]
    counts = output.counts()
    assert (counts.rows, counts.done, counts.left, counts.former) == (len(ROWS), len(ROWS), 0, 0)


@pytest.mark.parametrize("turn", [1, 4])  # while rows wait, and as the last are under way
def test_a_job_that_runs_renders_rows_that_are_added(turn: int, values: dict[str, Any]) -> None:
    summary = run(values, at={turn: partial(framefleet.add, values, LATER, wait_s=0)})
    assert summary and (summary.done, summary.failed) == (9, 0)
    check_whole(values, [*ROWS[:7], *LATER])
    with resolved_from(values) as resolved, closing(RowIndex()) as index:
        recalled = recall_survey(resolved, index, Callback())
        assert recalled and recalled.num_rows == 10, "the next run need not check the table again"
    again = run(values)
    assert again and again.done == 0
    check_whole(values, [*ROWS[:7], *LATER])


def test_a_job_is_stopped_while_it_checks_rows_that_are_added(
    values: dict[str, Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(driver, "WAIT_S", 0)
    add, stop = partial(framefleet.add, values, LATER, wait_s=0), partial(framefleet.stop, values["output"])
    assert run(values, at={1: add, 2: stop}) is None
    assert "rows added" not in caplog.text and records_of(values["output"])
    run(values)
    check_whole(values, [*ROWS[:7], *LATER])


def test_rows_are_added_to_an_output_of_scores_and_a_judge_without_asking_it(values: dict[str, Any]) -> None:
    judge: dict[str, Any] = {"name": "q", "url": "http://127.0.0.1:9/v1", "model": "m"}
    judge |= {"question": "Well?", "answer": {"number": [0, 1]}}
    scores = {"scores": ["tests.unit.test_score:number"]}
    run(values | scores | {"judge": [judge], "captions": {"url": judge["url"], "model": "m"}})
    assert framefleet.add(values, ROWS[7:]).num_rows == len(ROWS[7:])


def test_before_the_first_run_it_is_said_that_added_rows_wait(values: dict[str, Any], tmp_path: Path) -> None:
    dated = f"{values['output']}-{{date}}"
    more = write_table(tmp_path / "more.parquet", ROWS[7:])
    added = command("add", write_job(tmp_path / "job.yaml", values), more, "--output", dated)
    assert added.exit_code == 0 and " has no run yet\n" in added.stderr, added.stderr
    assert "has no run yet, only 2 added rows" in command("status", dated, "--check", exits=2).stderr


def test_status_says_that_added_rows_may_be_in_the_table_already(values: dict[str, Any]) -> None:
    run({**values, "table": str(write_table(Path(values["table"]), ROWS[:7]))})
    assert framefleet.add(values, LATER).num_rows == 3
    waiting = framefleet.status(values["output"])
    assert (waiting.num_rows, waiting.num_left, waiting.num_added) == (10, 3, 3)
    shown = command("status", values["output"]).stdout
    assert "3 left (3 added, and not yet compared with the table)" in shown, shown
    run(values)
    ended = framefleet.status(values["output"])
    assert (ended.num_rows, ended.num_left, ended.num_added) == (len(ROWS), 0, 0)


def test_rows_of_python_have_those_that_were_added_to_them(values: dict[str, Any]) -> None:
    with stored_rows(values, ROWS[:7]) as job:
        run(values | {"table": job.table})
    later = pa.Table.from_pylist(ROWS[7:8])
    large = [
        field.with_type(pa.large_string()) if field.type == pa.string() else field for field in later.schema
    ]
    framefleet.add(values | {"table": job.table}, later.cast(pa.schema(large)))
    del values["table"]
    planned = framefleet.plan(values, table=ROWS[:7])
    assert (planned.counts.done, planned.to_render) == (7, 1)
    fewer = [{name: row[name] for name in row.keys() - {"seed", "tag"}} for row in ROWS[:7]]
    with pytest.raises(TableError, match=r"has no columns 'seed', 'tag'.*\n.*add what is missing"):
        framefleet.plan(values, table=fewer)


@pytest.mark.parametrize("turn", [1, 3, 4, 5, 99])  # to the last, and after it
def test_who_adds_rows_hears_whether_they_are_rendered(turn: int, values: dict[str, Any]) -> None:
    output, adding = Store(values["output"]), []
    with ThreadPoolExecutor(1) as people:

        def add() -> None:
            adding.append(people.submit(framefleet.add, values, LATER, wait_s=200))
            while not (output.list("tables") or adding[0].done()):
                time.sleep(0.001)

        run(values, at={turn: add})
        if not adding:
            add()
        (added,) = (one.result() for one in adding)
    is_rendered = len(records_of(values["output"])) == 9
    assert added.rendered_by == ("running" if is_rendered else "next")
    assert is_rendered or turn > 1
    run(values)
    check_whole(values, [*ROWS[:7], *LATER])


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], None]]:
    """What is done in place of rendering, while a driver has the output."""
    doing: list[Callable[[], None]] = []

    def drive(*_: object) -> Summary:
        while doing:
            doing.pop()()
        return Summary(done=0, failed=0, elapsed_s=0, mean_batch=None)

    monkeypatch.setattr("framefleet.jobs.render.render._drive", drive)
    return doing


@pytest.mark.parametrize(("limit", "rendered_by"), [(None, "running"), (2, "next")])
def test_rows_that_a_limit_leaves_out_wait_for_the_next_run(
    limit: int | None, rendered_by: str, values: dict[str, Any], meanwhile: list[Callable[[], None]]
) -> None:
    answers = []

    def add() -> None:
        answers.extend(framefleet.add(values, rows) for rows in (ROWS[7:8], ROWS[8:])[: limit or 1])

    run({**values, "table": str(write_table(Path(values["table"]), ROWS[:1]))})
    write_table(Path(values["table"]), ROWS[:7])
    framefleet.add(values, ROWS[7:8])
    meanwhile.append(add)
    framefleet.render(values, limit=limit)
    assert [one.rendered_by for one in answers] == [rendered_by] * (limit or 1)
    assert [one.is_new for one in answers] == [False, True][: limit or 1]


@pytest.mark.usefixtures("meanwhile")
def test_a_limit_leaves_out_rows_that_cannot_be_rendered_beyond_it(values: dict[str, Any]) -> None:
    write_table(Path(values["table"]), [*ROWS[:5], ROWS[5] | {"num_inference_steps": 0}, ROWS[6]])
    assert framefleet.plan(values, limit=5).num_invalid == 0
    framefleet.render(values, limit=5)
    for limit in (6, None):
        with pytest.raises(TableError, match="row 5"):
            framefleet.render(values, limit=limit)


def test_a_driver_that_is_gone_or_does_not_answer_is_not_waited_for_without_end(
    values: dict[str, Any],
) -> None:
    run(values)
    store, driver = Store(values["output"]), Holder.here("another")
    ended = subprocess.Popen(["true"])
    ended.wait()
    store.write(epoch_path(2), replace(driver, pid=ended.pid, process_started="1").to_bytes())
    added = framefleet.add(values, ROWS[7:8])
    assert added.rendered_by == "next"
    store.write(epoch_path(2), replace(driver, machine="elsewhere").to_bytes())
    added = framefleet.add(values, ROWS[8:], wait_s=0.1)
    assert added.rendered_by == "unknown"


def test_rows_that_were_rendered_before_they_left_the_table_are_not_rendered_again(
    values: dict[str, Any], tmp_path: Path
) -> None:
    run({**values, "table": str(write_table(tmp_path / "t.parquet", ROWS[5:]))})
    write_table(tmp_path / "t.parquet", ROWS[:5])
    summary = run(values, at={1: lambda: framefleet.add(values, ROWS[4:], wait_s=0) and None})
    assert summary and summary.done == 5
    check_whole(values, [*ROWS[:5], *ROWS[4:]])


def test_without_a_driver_the_next_run_renders_them(values: dict[str, Any], tmp_path: Path) -> None:
    run(values)
    (more := tmp_path / "more.csv").write_text(
        "tag,prompt,seed,guidance_scale,num_inference_steps\n"
        + "".join(f"{r['tag']},{r['prompt']},{r['seed']},{r['guidance_scale']},2\n" for r in ROWS[7:])
    )
    job = write_job(tmp_path / "job.yaml", values)
    found = command("add", job, more)
    assert found.exit_code == 0 and found.stdout.startswith("2 rows added: "), found.output
    assert f"the next run with the output {values['output']} will render these rows" in found.stderr
    assert command("add", job, more).stdout.startswith("2 rows added before")
    assert "7/9 rows done, 2 left" in command("status", values["output"], "--check", exits=1).output
    summary = run(values)
    assert summary and summary.done == 2
    check_whole(values, ROWS)
    assert "will render those of these rows that are left" in command("add", job, more).stderr


def test_a_damaged_file_of_added_rows_does_not_end_a_run(
    values: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    def damage() -> None:
        Path(framefleet.add(values, LATER, wait_s=0).url).write_bytes(b"PAR1")

    with caplog.at_level(logging.WARNING):
        summary = run(values, at={1: damage})
    assert summary and summary.done == 7
    assert "is not rendered by this run: " in caplog.text
    assert not driver_of(Store(values["output"])).tables, "nobody is promised what cannot be read"
    with pytest.raises(FramefleetError, match="cannot be read"):
        run(values)


@pytest.mark.parametrize(
    ("rows", "changed", "said"),
    [
        ([{**ROWS[8], "num_inference_steps": 0}], {}, "row 0: num_inference_steps is 0"),
        ([{**ROWS[8], "Tag": "x"}], {}, "has a column 'Tag'.*\n?.*did you mean 'tag'"),
        ([ROWS[8], {**ROWS[8], "tag": "x", "seed": 1.5}], {}, "row 1: seed"),
        ([{"prompt": "s3://user:secret@bucket"}], {}, "with a user or a password"),
        ([{"seed": 8}], {}, "prompt"),
        ([{**ROWS[8], ODD_CELLS: '[["prompt", "x", "reason", "fix"]]'}], {}, "has a column '.x00odd'"),
        ([{"prompt": "b"}], {"columns": {"prompt": "caption"}}, "rename the column 'prompt' of"),
        (ROWS[8:], {"sweep": {"seed": [1]}}, "the job has a sweep"),
        (ROWS[8:], {"draft": {"num_inference_steps": 1, "keep": {"where": "true"}}}, "the job has `draft`"),
        (ROWS[8:], {"recipe": "refine"}, "clips of another job"),
    ],
)
def test_what_cannot_be_added_is_refused_with_the_reason(
    rows: list[dict[str, Any]], changed: dict[str, Any], said: str, values: dict[str, Any]
) -> None:
    run(values)
    with pytest.raises(FramefleetError, match=said):
        framefleet.add({**values, **changed}, rows)
    assert not Store(values["output"]).list("tables")


def test_a_number_that_the_table_would_round_is_refused_with_its_row(values: dict[str, Any]) -> None:
    scales = pa.array([7.5, 3.5], pa.float32())
    table = pa.table({"prompt": ["a", "b"], "guidance_scale": scales})
    pa.parquet.write_table(table, values["table"])
    assert framefleet.add(values, [{"prompt": "c", "guidance_scale": 1.25}]).num_rows == 1
    with pytest.raises(TableError, match=r"row 1: guidance_scale is 7\.3, but the job's table has float"):
        framefleet.add(values, [{"prompt": n, "guidance_scale": s} for n, s in (("c", 0.5), ("d", 7.3))])


def test_rows_that_the_job_leaves_out_are_named(values: dict[str, Any]) -> None:
    found = framefleet.add(values | {"on_invalid": "skip"}, [*LATER, {**ROWS[8], "num_inference_steps": 0}])
    assert (found.num_rows, found.is_new) == (3, True)
    assert len(found.left_out) == 1 and "row 3: num_inference_steps is 0" in found.left_out[0]
