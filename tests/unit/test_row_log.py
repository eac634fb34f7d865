"""What happened to a row is kept in the output, as far as its record does not say it."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from framefleet.jobs.show.console import complain, reporting, stderr
from framefleet.pipeline.outputs.layout import LOGS
from framefleet.pipeline.outputs.parts.parts import PartWriter
from framefleet.pipeline.outputs.row_states import LOG_FIELDS
from tests.commands import command
from tests.outputs import RUN, write_output
from tests.rows import NOON, record

ROW, OTHER = record(1).row_id, record(2).row_id


@pytest.fixture
def output(tmp_path: Path) -> Path:
    store = write_output(tmp_path, [record(1)])
    lines = PartWriter(store, LOGS, LOG_FIELDS, run=RUN)
    for row_id, message in ((ROW, "out of memory"), (OTHER, "\x1b[2J forged\nline"), (ROW, "attempt 2")):
        values = {"at": NOON, "level": "info", "worker": "worker-0", "row_id": row_id, "message": message}
        lines.add(None, values)
    lines.flush()
    return tmp_path


def test_the_lines_of_a_row_come_in_order_and_end_with_its_record(output: Path) -> None:
    shown = command("logs", output, ROW).stdout.splitlines()
    assert [line.partition("  worker-0")[2].strip() for line in shown[:2]] == ["out of memory", "attempt 2"]
    assert shown[0].startswith(NOON.isoformat(" ", "seconds")), "with its zone, as status prints times"
    done = record(1)
    worked_s = done.encode_s + done.denoise_s + done.decode_s + done.write_s
    assert f"done on {done.node}, attempt 1, in {worked_s:.1f} s" in shown[2] and shown[2].endswith(done.uri)
    values = [json.loads(line) for line in command("logs", output, ROW, "--json").stdout.splitlines()]
    assert [value["message"] for value in values[:2]] == ["out of memory", "attempt 2"]


def test_without_a_row_the_lines_of_all_are_shown_and_none_forges_another(output: Path) -> None:
    shown = command("logs", output).stdout
    assert len(shown.splitlines()) == 3 and OTHER in shown and "\x1b" not in shown


def test_a_row_of_which_nothing_is_known_is_an_answer_too(output: Path) -> None:
    found = command("logs", output, "f" * 32)
    assert (found.exit_code, found.stdout) == (0, "")
    assert "nothing went wrong" in found.stderr


def test_in_json_each_line_says_of_which_job_worker_and_row_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Whoever listens too takes nothing from the command.
    monkeypatch.setattr(logging.getLogger("framefleet"), "handlers", [logging.NullHandler()])
    with pytest.raises(SystemExit), reporting(verbose=False, log_format="json"):
        assert stderr.about is not None
        stderr.about["job"] = "s3://bucket/run-7"
        stderr.say("40 rows checked")
        about = {"worker": "worker-0", "row_id": ROW}
        logging.getLogger("framefleet.test").warning("a\nb %s", "\u2028", extra=about)
        complain("no", "do it")
        raise MemoryError
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert all(line.pop("time") and line["job"] == "s3://bucket/run-7" for line in lines)
    assert [line["level"] for line in lines] == ["info", "warning", "error", "hint", "error", "hint"]
    assert lines[1] == {
        "level": "warning",
        "job": "s3://bucket/run-7",
        "worker": "worker-0",
        "row_id": ROW,
        "message": "a\nb \u2028",
    }
    assert stderr.about is None
