"""Prompts that an endpoint writes before anything is rendered: once, whatever happens meanwhile."""

from __future__ import annotations

import json
import time
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

import framefleet
from framefleet import EndpointError, Output, TableError, UserError
from framefleet.api.jobs import Job, Summary, load_job, store_of_job
from framefleet.cluster.driver.lock import STOP, DriverLock
from framefleet.jobs.doors import Scope
from framefleet.jobs.render.claim import claim
from framefleet.jobs.render.resolve import resolve_job
from framefleet.jobs.show.watch import Callback
from framefleet.pipeline.rows.tables.rows import InvalidRow
from framefleet.pipeline.rows.tables.table_rows import IdentifiedRow
from framefleet.plugins.watch.control import ask_driver
from framefleet.plugins.words import endpoint, prompts
from framefleet.plugins.words.plugin import PromptsRunner
from framefleet.plugins.words.prompts import write_prompts
from tests.chat_server import Chat
from tests.commands import command
from tests.jobs import job_values, write_job, write_table

ROWS = [
    {"prompt": "a red ball", "seed": 1, "style": "photo"},
    {"prompt": "a red ball", "seed": 2, "style": "photo"},
    {"prompt": "rain", "seed": 1, "style": "anime"},
    {"prompt": "雨", "seed": 1, "style": "photo"},
]


pytestmark = pytest.mark.usefixtures("at_once")


def job_file(tmp_path: Path, chat: Chat, rows: list[dict[str, Any]] = ROWS, **rewrite: Any) -> Path:
    table = write_table(tmp_path / "t.parquet", rows)
    section = {"url": chat.url, "model": "pen", "question": "Write: {prompt}", "parallel": 1, **rewrite}
    values = job_values(table, tmp_path / "out", prompts={"rewrite": section})
    return write_job(tmp_path / "job.yaml", values)


def rows_rendered(job: Job, **scope: Any) -> list[dict[str, Any]]:
    """The rows that a run of the job would read."""
    tables: list[str] = []

    def run(job: Job, watch: Any, scope: Scope) -> Summary:
        tables.append(str(scope.table))
        return Summary(done=0, failed=0, elapsed_s=0.0, mean_batch=None)

    PromptsRunner().render(job, Callback(), Scope(**scope), run=run)
    return pq.read_table(tables[0]).to_pylist()


def test_each_prompt_is_written_once_and_stays(tmp_path: Path, chat: Chat) -> None:
    job = load_job(job_file(tmp_path, chat))
    rows = rows_rendered(job)
    assert [row["prompt"] for row in rows] == [f"In golden light: Write: {row['prompt']}" for row in ROWS]
    assert [row["original_prompt"] for row in rows] == [row["prompt"] for row in ROWS]
    assert [(row["seed"], row["style"]) for row in rows] == [(row["seed"], row["style"]) for row in ROWS]
    assert len(chat.log) == 3
    assert rows_rendered(job) == rows and len(chat.log) == 3
    more = [*ROWS, {"prompt": "snow", "seed": 1, "style": "photo"}]
    assert rows_rendered(load_job(job_file(tmp_path, chat, more)))[:4] == rows and len(chat.log) == 4


def test_other_columns_may_stand_in_the_question_and_empty_prompts_stay(tmp_path: Path, chat: Chat) -> None:
    rows = [*ROWS[:3], {"prompt": None, "seed": 3, "style": None}]
    asked = job_file(tmp_path, chat, rows, question="{style}: {prompt}")
    written = [row["prompt"] for row in rows_rendered(load_job(asked, ["defaults.prompt=a tree"]))]
    assert written[2:] == ["In golden light: anime: rain", None]


def test_a_trial_pays_for_its_own_rows_and_later_runs_for_the_rest(tmp_path: Path, chat: Chat) -> None:
    more = [{"prompt": "snow", "seed": 1}, {"prompt": "a wall", "seed": 1, "height": 33}]
    table = [{"height": None} | row for row in [*ROWS, *more]]
    file = job_file(tmp_path, chat, table)
    job = load_job(file)
    assert "prompts: 1 of 5 to be written first" in command("plan", file, "--limit", 2).stdout
    for _ in range(2):
        originals = [row["original_prompt"] for row in rows_rendered(job, limit=2)]
        assert originals == ["a red ball", "a red ball", "a wall"] and len(chat.log) == 1
    assert len(rows_rendered(job, limit=3)) == 4 and len(chat.log) == 2
    assert len(rows_rendered(job, only=["0" * 32])) == 4 and len(chat.log) == 2  # as `retry`
    with pytest.raises(TableError, match="height is 33"):
        rows_rendered(job)
    assert len(chat.log) == 2
    valid = load_job(job_file(tmp_path, chat, table[:5]))
    assert len(rows_rendered(valid)) == 5 and len(chat.log) == 4
    assert len(rows_rendered(valid, limit=2)) == 5


def test_nobody_is_paid_for_rows_that_are_left_out(tmp_path: Path, chat: Chat) -> None:
    rows = [*ROWS, {"prompt": "a wall", "seed": 1, "height": 33}]
    file = job_file(tmp_path, chat, [{"height": None} | row for row in rows])
    job = load_job(file, ["on_invalid=skip"])
    for _ in range(2):
        texts = [row["prompt"] for row in rows_rendered(job)]
        assert len(chat.log) == 3
        assert [text.startswith("In golden light") for text in texts] == [True] * 4 + [False]
    assert "written first" not in command("plan", file, "--set", "on_invalid=skip").stdout


def test_a_run_that_is_interrupted_asks_only_for_the_rest(tmp_path: Path, chat: Chat) -> None:
    job = job_file(tmp_path, chat, attempts=1)
    chat.will({}, {"status": 503, "always": True})
    with pytest.raises(EndpointError):
        framefleet.prompts(job)
    assert not (tmp_path / "out/prompts").exists()
    asked = len(chat.log)
    chat.will()
    texts = framefleet.prompts(job)
    assert len(texts) == 3 and len(chat.log) == asked + 2
    assert (
        framefleet.prompts(tmp_path / "out") == texts
        and "red ball" in command("prompts", tmp_path / "out").stdout
    )
    assert "no written prompts" in command("prompts", tmp_path).output and len(chat.log) == asked + 2


def test_a_job_that_is_to_stop_writes_no_more_prompts_and_renders_no_row(
    tmp_path: Path, chat: Chat, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    job = load_job(job_file(tmp_path, chat, [{"prompt": f"ball {n}", "seed": n} for n in range(40)]))
    locks: list[DriverLock] = []

    class Watched(DriverLock):
        def __enter__(self) -> DriverLock:
            locks.append(self)
            return super().__enter__()

    def asked(*given: Any) -> float | str:
        if locks and len(chat.log) == 4:
            ask_driver(Output(store_of_job(job)), STOP)
            while STOP not in locks[0].asked:
                time.sleep(0.01)
        return endpoint.ask(*given)

    monkeypatch.setattr(prompts, "DriverLock", partial(Watched, beat_s=0.02))
    monkeypatch.setattr(prompts, "ask", asked)
    with pytest.raises(KeyboardInterrupt):
        rows_rendered(job)
    num_written = len(chat.log)
    assert 4 < num_written < 10 and "the prompts that were written stay" in caplog.text
    assert len(rows_rendered(job)) == 40 == len(chat.log)


@pytest.mark.parametrize("mood", [{"status": 400}, {"status": 403}, {"status": 500}, {"raw": "<html>"}])
def test_a_prompt_that_gets_no_answer_is_an_invalid_row(
    mood: dict[str, Any], tmp_path: Path, chat: Chat
) -> None:
    chat.will({"for": "red", **mood}, {"for": "雨", **mood})  # the first, and the last
    job = job_file(tmp_path, chat, attempts=2)
    with pytest.raises(TableError, match="3 of 4 rows cannot be rendered") as refused:
        framefleet.prompts(job)
    assert all(f"row {row}: prompt is '{ROWS[row]['prompt']}', but pen wrote no prompt for it: " in
               str(refused.value) for row in (0, 1, 3))  # fmt: skip
    left_out = load_job(job, ["on_invalid=skip"])
    with endpoint.counting_requests():
        place = write_prompts(left_out, Callback()).place
    with closing(resolve_job(left_out, Callback(), place)) as resolved:
        rows = [row for first, batch in resolved.table.batches() for row in resolved.rows.read(first, batch)]
    valid = [row.index for row in rows if isinstance(row, IdentifiedRow)]
    (message, *_), *_ = (row.messages()[0] for row in rows if isinstance(row, InvalidRow))
    assert valid == [2] and message.startswith(
        "row 0: prompt is 'a red ball', but pen wrote no prompt for it"
    )
    num_asked = len(chat.log)
    chat.will()
    assert len(framefleet.prompts(job)) == 3 and len(chat.log) == num_asked + 2


def test_a_row_about_which_nothing_can_be_asked_is_an_invalid_row(tmp_path: Path, chat: Chat) -> None:
    usual = {"prompt": "a lake " * 1500, "style": "photo", "k": 0}
    odd = [{"prompt": "rain", "style": None, "k": 1}, {"prompt": "snow", "style": "photo", "k": "x"}]
    table = tmp_path / "t.jsonl"  # a column's type is that of its cells in the first megabyte
    table.write_text("\n".join(json.dumps(row) for row in [*[usual] * 130, *odd]))
    section = {"url": chat.url, "model": "pen", "question": "{style}: {prompt}"}
    job = write_job(tmp_path / "job.yaml", job_values(table, tmp_path / "out", prompts={"rewrite": section}))
    with pytest.raises(TableError, match="2 of 132 rows cannot be rendered") as refused:
        framefleet.prompts(job)
    assert "prompt is 'rain', but prompts.rewrite: the row has no 'style'" in str(refused.value)
    assert "k is 'x', but the column holds whole numbers" in str(refused.value)
    assert chat.log == []
    assert len(framefleet.prompts(load_job(job, ["on_invalid=skip"]))) == len(chat.log) == 1
    planned = framefleet.plan(load_job(job, ["on_invalid=skip"]))
    assert (planned.num_rows, planned.num_invalid) == (132, 2)


@pytest.mark.parametrize(
    ("row", "rewrite", "problem"),
    [
        ({"prompt": "a", "seed": 1, "height": 33}, {}, "height"),
        ({"seed": 1, "text": "a"}, {}, "rows have no 'prompt'"),
        ({"prompt": "a", "original_prompt": "b"}, {}, "'original_prompt'"),
        ({"prompt": "a"}, {"question": "Write!"}, r"\{prompt\}"),
        ({"prompt": "a", "style": None}, {"question": "{style}: {prompt}"}, "the row has no 'style'"),
    ],
)
def test_what_cannot_be_rendered_is_refused_before_anybody_is_asked(
    row: dict[str, Any], rewrite: dict[str, Any], problem: str, tmp_path: Path, chat: Chat
) -> None:
    with pytest.raises(UserError, match=problem):
        framefleet.prompts(job_file(tmp_path, chat, [row], **rewrite))
    assert chat.log == []


UNTIL = {"until": {"where": "sharpness > 1", "accepted": 1, "at_most": 1}, "scores": ["sharpness"]}
DRAFT = {"draft": {"num_inference_steps": 1, "keep": {"best": 1, "by": "sharpness"}}, "scores": ["sharpness"]}


@pytest.mark.parametrize("more", [{}, UNTIL, DRAFT], ids=["plain", "until", "draft"])
def test_a_job_is_planned_with_its_prompts(more: dict[str, Any], tmp_path: Path, chat: Chat) -> None:
    rows = [{"prompt": "rain"}, {"prompt": "a red ball"}]
    file = job_file(tmp_path, chat, rows)
    values = yaml.safe_load(file.read_text()) | more
    job = load_job(write_job(file, values))
    assert "prompts: 2 of 2 to be written first, by pen" in command("plan", file).stdout
    with closing(resolve_job(job, Callback(), write_prompts(job, Callback()).place)) as resolved:
        claim(resolved)
    framefleet.prompts(job, corrections={"rain": "rain", "a red ball": "rain"})
    files = sorted(Path(job.output).rglob("*"))
    planned = command("plan", file, exits=0)
    assert f"table:  {values['table']}\n" in planned.stdout and "written first" not in planned.stdout
    assert framefleet.plan(file).counts.duplicates == (1 if more is not UNTIL else 0)
    assert sorted(Path(job.output).rglob("*")) == files


def test_the_plan_asks_nothing_and_the_command_writes_shows_and_corrects(tmp_path: Path, chat: Chat) -> None:
    job = job_file(tmp_path, chat)
    assert "prompts: 3 of 3 to be written first, by pen" in command("plan", job).stdout
    assert chat.log == [] and not (tmp_path / "out").exists()
    assert "rain\n    In golden light: Write: rain" in command("prompts", job).stdout
    lines = command("prompts", job, "--json").stdout.splitlines()
    texts = [json.loads(line) for line in lines]
    assert len(texts) == 3
    texts[1]["prompt"] = "rain on a tin roof"
    edited = tmp_path / "edited.jsonl"
    edited.write_text("\ufeff" + "\r\n".join(json.dumps(text) for text in texts), "utf-8")  # as Notepad
    assert "1 prompt replaced" in command("prompts", job, "--from", edited).stderr
    assert [row["prompt"] for row in rows_rendered(load_job(job))][2] == "rain on a tin roof"
    assert len(chat.log) == 3
    assert "written first" not in command("plan", job).stdout
    edited.write_text('{"original_prompt": "nobody", "prompt": "x"}')
    assert "has no text for the prompt 'nobody'" in command("prompts", job, "--from", edited, exits=2).stderr


def test_an_endpoint_that_does_not_answer_leaves_nothing_in_the_output(tmp_path: Path, chat: Chat) -> None:
    for mood in ({"status": 400, "always": True}, {"status": 500, "always": True}):
        chat.will(mood)
        failed = command("prompts", job_file(tmp_path, chat, attempts=1))
        assert failed.exit_code and not (tmp_path / "out").exists(), failed.output


def test_a_list_that_nobody_edited_changes_no_prompt_of_two_questions(tmp_path: Path, chat: Chat) -> None:
    rows = [{"prompt": "a fox", "style": style} for style in ("photo", "anime")]
    file = job_file(tmp_path, chat, rows, question="Write: {prompt}, as {style}")
    texts = framefleet.prompts(file)
    written = [row["prompt"] for row in rows_rendered(load_job(file))]
    assert len({*written}) == 2 and texts == {"a fox": written[1]}
    framefleet.prompts(file, corrections=texts)
    assert [row["prompt"] for row in rows_rendered(load_job(file))] == written
    for unusable in ("", "a" * 70_000, "half \ud800", 7):
        with pytest.raises(TableError, match="the new prompt for 'a fox'"):
            framefleet.prompts(file, corrections={"a fox": unusable})  # type: ignore[dict-item]
    framefleet.prompts(file, corrections={"a fox": "a red fox"})
    assert [row["prompt"] for row in rows_rendered(load_job(file))] == ["a red fox"] * 2


def test_texts_of_two_questions_about_a_prompt_are_shown_and_corrected_by_question(
    tmp_path: Path, chat: Chat
) -> None:
    rows = [{"prompt": "a fox", "style": style} for style in ("photo", "anime")]
    command("prompts", job_file(tmp_path, chat, rows, question="Write about {prompt}"))
    file = job_file(tmp_path, chat, rows, question="Write: {prompt}, as {style}")
    written = command("prompts", file, "--json").stdout
    for style in ("photo", "anime"):
        question = f"Write: a fox, as {style}"
        assert f"{question}\n    In golden light: {question}" in command("prompts", file).stdout
    edited = tmp_path / "edited.jsonl"
    edited.write_text(written.replace("light: Write: a fox, as photo", "light: a red fox"), "utf-8")
    assert "1 prompt replaced" in command("prompts", file, "--from", edited).stderr
    changed = [row["prompt"] for row in rows_rendered(load_job(file))]
    assert changed == ["In golden light: a red fox", "In golden light: Write: a fox, as anime"]
