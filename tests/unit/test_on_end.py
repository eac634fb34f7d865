"""What `on_end` names gets how a run ended, and the run ends as it would have."""

from __future__ import annotations

import errno
import json
import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from select import select
from typing import Any

import pytest
from tenacity import wait_none

from framefleet import JobError, OutputInUse, Store, StoreError, Summary, UserError, plan
from framefleet.api.commands import Callback, reporting
from framefleet.cluster.driver.lock import DriverLock
from framefleet.jobs.job.file import load_job
from framefleet.jobs.render import render
from framefleet.jobs.render.claim import claim
from framefleet.pipeline.guards.redaction import keep_secrets, public_text
from framefleet.plugins.notify import on_end
from framefleet.plugins.notify.heartbeat import beating
from framefleet.plugins.notify.on_end import report_end
from framefleet.plugins.notify.plugin import HeartbeatListener
from framefleet.plugins.notify.section import HeartbeatSection
from tests.answering import Answering, answered_by
from tests.jobs import job_values, prompt_rows, resolved_from, write_table

SUMMARY = Summary(done=3, failed=1, elapsed_s=9.0, mean_batch=2.0, store=Store("/out"))


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_end, "_PAUSE", wait_none())
    monkeypatch.setattr(on_end, "_WEBHOOK_S", 120.0)  # an answer that is late would be asked for again


@contextmanager
def listening(*statuses: int, to: str = "") -> Iterator[tuple[str, list[Any]]]:
    """Yield the URL of a server that answers with these, then with 200, and what it was sent.

    to: where its redirects lead.
    """
    sent: list[Any] = []

    class Handler(Answering):
        def do_POST(self) -> None:
            self._note(json.loads(self.body()))

        def do_GET(self) -> None:
            self._note(f"GET {self.path.rpartition('/')[2]}")

        def _note(self, request: Any) -> None:
            sent.append(request)
            self.answer(
                statuses[len(sent) - 1] if len(sent) <= len(statuses) else 200, headers={"Location": to}
            )

    with answered_by(Handler) as url:
        yield f"{url}/services/T0/secret-of-chat", sent


def job(tmp_path: Path, section: str = "on_end", **keys: Any) -> Any:
    return load_job({"table": "t.csv", "output": str(tmp_path / "out"), "model": "m", section: keys})


def refusal(wanted: Any) -> str:
    with pytest.raises(JobError) as caught, report_end(wanted):
        pytest.fail("it begins")
    return str(caught.value)


def test_the_summary_is_posted_until_somebody_takes_it(tmp_path: Path) -> None:
    with listening(503, 500) as (url, sent), report_end(job(tmp_path, webhook=url)) as end:
        end(SUMMARY)
    assert len(sent) == 3
    out = str(tmp_path / "out")
    ending = {"state": "incomplete", "exit_code": 1, "output": out, "error": None}
    ending["text"] = f"{out}: incomplete, 3 rows done, {SUMMARY.failed} failed"
    assert sent[2] == ending | {"summary": sent[2]["summary"]} and sent[2]["summary"]["done"] == 3


def test_only_failures_are_reported_where_the_job_says_so(tmp_path: Path) -> None:
    with listening() as (url, sent):
        for failed in (0, 1):
            with report_end(job(tmp_path, webhook=url, when="failed")) as end:
                end(replace(SUMMARY, failed=failed))
        with pytest.raises(StoreError), report_end(job(tmp_path, webhook=url, when="failed")):
            raise StoreError("no answer", "wait")
    assert [one["state"] for one in sent] == ["incomplete", "error"]


def test_a_monitor_hears_that_a_run_starts_and_how_it_ends(tmp_path: Path) -> None:
    with listening() as (url, sent):
        urls = {key: f"{url}/{key}" for key in ("start", "end", "failed")}
        for wanted in (urls, {"end": urls["end"]}):
            beats = job(tmp_path, "heartbeat", **wanted)
            with beating(beats) as end, HeartbeatListener().following(beats, Callback()):
                end(replace(SUMMARY, failed=0))
            with beating(beats) as end, HeartbeatListener().following(beats, Callback()):
                end(SUMMARY)
            with pytest.raises(StoreError), beating(beats):
                for _ in ("drafts", "in full"):
                    with HeartbeatListener().following(beats, Callback()):
                        """It is one run."""
                raise StoreError("no answer", "wait")
    both = ["GET start", "GET end", "GET start", "GET failed", "GET start", "GET failed"]
    assert sent == [*both, "GET end", "GET end", "GET end"]


def test_a_run_on_an_output_in_use_reports_neither_start_nor_end(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    with listening() as (url, sent):
        ends = job(tmp_path, webhook=url)
        beats = ends.model_copy(update={"heartbeat": HeartbeatSection(start=url, end=url, failed=url)})
        for either in (report_end(ends), beating(beats)):
            with DriverLock(store), pytest.raises(OutputInUse), either, DriverLock(store):
                """It never begins."""
        assert sent == []
        in_use = pytest.raises(JobError, match="is being written by")
        with DriverLock(store, renders=False), in_use, report_end(ends), DriverLock(store):
            """`compact` or `repair` has it, which reports no end."""
        assert len(sent) == 1


def test_a_monitor_that_is_silent_changes_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with beating(job(tmp_path, "heartbeat", end="http://127.0.0.1:9/secret-of-check")) as end:
        end(SUMMARY)
    assert "heartbeat.end: the request to 127.0.0.1 failed: " in caplog.text
    assert "secret-of-check" not in caplog.text
    with beating(job(tmp_path, "heartbeat", end="http://user:secret-of-user@[x/secret")) as end:
        end(SUMMARY)  # an address that nobody can have
    assert "heartbeat.end: the request to its address failed: " in caplog.text
    assert "secret-of-user" not in caplog.text


def test_a_monitor_is_asked_once_by_who_is_interrupted(tmp_path: Path) -> None:
    with listening(*[503] * 9) as (url, sent):
        for run in (beating(job(tmp_path, "heartbeat", failed=url)), report_end(job(tmp_path, webhook=url))):
            with pytest.raises(KeyboardInterrupt), run:
                raise KeyboardInterrupt
    assert len(sent) == 2


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), 3),
        (MemoryError(), 3),
        (PermissionError(errno.EACCES, "Permission denied"), 2),
        (ValueError("a bug"), None),
    ],
)
def test_errors_of_others_have_an_exit_code_too(
    tmp_path: Path, error: Exception, exit_code: int | None
) -> None:
    with listening() as (url, sent):
        with pytest.raises(type(error)), report_end(job(tmp_path, webhook=url)):
            raise error
        with pytest.raises(SystemExit) as ended, reporting(verbose=False):
            raise error
    assert [one["exit_code"] for one in sent] == [exit_code]
    assert ended.value.code == (exit_code or 70)


def test_a_monitor_hears_of_a_run_that_cannot_report_its_end(tmp_path: Path) -> None:
    with listening() as (url, sent):
        urls = HeartbeatSection(start=f"{url}/start", end=f"{url}/end", failed=f"{url}/failed")
        beats = job(tmp_path, command=["./gone"]).model_copy(update={"heartbeat": urls})
        with pytest.raises(JobError, match="gone is not a program"):
            render.render_job(beats, Callback(None))
    assert sent == ["GET failed"]


def test_an_error_is_reported_too_and_is_raised(tmp_path: Path) -> None:
    keep_secrets({"password": 'qu"ote-密钥\n-of-it'})
    with listening() as (url, sent):
        with pytest.raises(StoreError), report_end(job(tmp_path, webhook=url)):
            raise StoreError('s3://key:pass@bucket refuses qu"ote-密钥\n-of-it', "wait")
        with pytest.raises(KeyboardInterrupt), report_end(job(tmp_path, webhook=url)):
            raise KeyboardInterrupt
    failed, interrupted = sent
    assert (failed["state"], failed["exit_code"], failed["summary"]) == ("error", 3, None)
    assert failed["error"] == {"problem": "s3://bucket refuses ***", "fix": "wait"}
    assert interrupted["state"] == "interrupted"


def test_a_command_gets_it_and_prints_no_results(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    program = f"import sys; open({str(tmp_path / 'told')!r}, 'w').write(sys.stdin.read()); print('hello')"
    with report_end(job(tmp_path, command=[sys.executable, "-c", program])) as end:
        end(SUMMARY)
    assert json.loads((tmp_path / "told").read_text())["summary"]["failed"] == 1
    printed = capfd.readouterr()
    assert (printed.out, printed.err) == ("", "hello\n")


def test_the_path_of_a_command_starts_in_the_folder_of_the_job_file(tmp_path: Path) -> None:
    program = tmp_path / "job/notify"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\necho $1 >{tmp_path}/told\n")
    program.chmod(0o755)
    text = "table: t.csv\noutput: out\nmodel: m\non_end: {command: [./notify, --team]}"
    (tmp_path / "job/job.yaml").write_text(text)
    with report_end(load_job(tmp_path / "job/job.yaml")) as end:
        end(SUMMARY)
    assert (tmp_path / "told").read_text() == "--team\n"


def test_who_does_not_take_it_changes_nothing_and_neither_address_nor_arguments_are_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broken = tmp_path / "broken"  # of a format that no kernel runs
    broken.write_bytes(b"\0")
    broken.chmod(0o755)
    password = ["--password", "hunter2-of-the-chat"]
    with listening(*[404] * 9) as (url, sent):
        for program in ("false", str(broken)):
            with report_end(job(tmp_path, webhook=url, command=[program, *password])) as end:
                end(SUMMARY)
    assert len(sent) == 8
    webhook, false, _, unrunnable = (record.getMessage() for record in caplog.records)
    assert "on_end.webhook at 127.0.0.1 could not be notified that the job ended: it answered HTTP" in webhook
    assert "on_end.command false could not be notified" in false and "exit status 1" in false
    assert f"on_end.command {broken} could not be notified" in unrunnable
    assert "hunter2" not in caplog.text and "--password" not in caplog.text
    assert "secret-of-chat" not in caplog.text + public_text(f"called {url}")


def test_a_command_that_takes_too_long_runs_once_and_ends_with_what_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(on_end, "_COMMAND_S", 1.0)
    os.mkfifo(pipe := tmp_path / "pipe")  # has an end once all that were started have
    script = f"exec 3>{pipe}; echo >&3; sleep 600 & wait"
    with open(os.open(pipe, os.O_RDONLY | os.O_NONBLOCK), "rb", buffering=0) as running:
        with report_end(job(tmp_path, command=["sh", "-c", script, "--password", "hunter2"])) as end:
            end(SUMMARY)
        starts = b""
        while select([running], [], [], 60)[0] and (content := running.read(9)):
            starts += content
        assert running.read(9) == b"" and len(starts) <= 1
    assert [record.getMessage() for record in caplog.records] == [
        "on_end.command sh could not be notified that the job ended: it was ended after 1 s"
    ]


@pytest.mark.parametrize("program", ["./none-of-this-name", "/dev/null", "none-of-this-name"])
def test_a_command_that_is_not_there_is_refused_before_the_run(tmp_path: Path, program: str) -> None:
    problem = refusal(job(tmp_path, command=[program, "--password", "hunter2-of-the-chat"]))
    assert f"on_end.command: {program} is not a program" in problem and "hunter2" not in problem


def test_a_command_that_is_not_executable_is_refused_with_how_to_make_it_so(tmp_path: Path) -> None:
    (tmp_path / "notify.sh").write_text("#!/bin/sh\n")
    program = str(tmp_path / "notify.sh")
    problem = refusal(job(tmp_path, command=[program]))
    assert problem == f"on_end.command: {program} is not executable\nhint: run chmod +x {program}"


def test_urls_of_variables_are_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with listening() as (url, sent):
        monkeypatch.setenv("ALL_OF_IT", f"{url}/check-of-variable")
        monkeypatch.setenv("END_OF_IT", "hook-of-variable")
        with report_end(job(tmp_path, webhook=f"{url}/${{END_OF_IT}}")) as end:
            end(SUMMARY)
        with beating(job(tmp_path, "heartbeat", end="${ALL_OF_IT}")) as end:
            end(SUMMARY)
    assert (sent[0]["state"], sent[1]) == ("incomplete", "GET check-of-variable")
    shown = public_text(f"hook-of-variable {url}/check-of-variable")
    assert "of-variable" not in shown


@pytest.mark.parametrize(("value", "problem"), [("", "ABSENT is not set"), ("x.y", "ABSENT does not start")])
def test_variables_that_give_no_url_are_refused_before_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str, problem: str
) -> None:
    monkeypatch.setenv("ABSENT", value)
    assert re.search(f"on_end.webhook: .*{problem}", refusal(job(tmp_path, webhook="${ABSENT}")))


def test_all_that_this_machine_lacks_is_said_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("HOOK", "START", "END"):
        monkeypatch.delenv(name, raising=False)
    values = {"table": "t.csv", "output": str(tmp_path / "out"), "model": "m"}
    ends = {"webhook": "https://x.y/${HOOK}", "command": ["./none-of-this-name"]}
    with pytest.raises(UserError, match="model"):
        plan({**values, "on_end": ends, "heartbeat": {"start": "${START}", "end": "${END}"}})
    assert "would stop here: on_end" in caplog.text
    lacking = ("variable HOOK is not set", "none-of-this-name is not a program", "START is not", "END is not")
    assert [text for text in lacking if text not in caplog.text] == []


@pytest.mark.parametrize("status", [302, 307])
def test_a_webhook_that_redirects_is_not_followed_and_did_not_take_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    with (
        listening() as (elsewhere, there),
        listening(*[status] * 9, to=elsewhere) as (url, sent),
        report_end(job(tmp_path, webhook=url)) as end,
    ):
        end(SUMMARY)
    assert (len(sent), there) == (1, [])
    assert "could not be notified" in caplog.text and "it redirects" in caplog.text
    assert "secret-of-chat" not in caplog.text


def test_a_webhook_that_never_ends_its_headers_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(on_end, "_WEBHOOK_S", 1.0)

    class Dribbler(Answering):
        def do_POST(self) -> None:
            with suppress(OSError):  # the client has left
                self.wfile.write(b"HTTP/1.1 200 OK\r\n")
                while not is_over.wait(0.1):
                    self.wfile.write(b"x: y\r\n")

    is_over = threading.Event()
    with answered_by(Dribbler) as url:
        with pytest.raises(KeyboardInterrupt), report_end(job(tmp_path, webhook=url)):
            raise KeyboardInterrupt  # after which it is asked once
        is_over.set()
    assert "no answer within 1 s" in caplog.text


def test_job_json_does_not_have_it(tmp_path: Path) -> None:
    values = job_values(write_table(tmp_path / "t.parquet", prompt_rows(1)), tmp_path / "out")
    values["on_end"] = {"webhook": "https://chat.example/secret", "command": ["notify"]}
    with resolved_from(values) as resolved, DriverLock(resolved.store):
        claim(resolved)
        written = resolved.store.read("job.json").decode()
    assert "on_end" not in written and "secret" not in written and "notify" not in written
