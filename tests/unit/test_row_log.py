"""What happened to a row is kept in the output, as far as its record does not say it."""

from __future__ import annotations

import json
import logging
from datetime import timedelta
from pathlib import Path

import pytest

from framefleet.jobs.show.console import complain, reporting, stderr
from tests.commands import command
from tests.outputs import write_output
from tests.parts import write_log, write_row_ids
from tests.rows import NOON, record

DONE, WAITING = record(0xA << 124), record(0xB << 124)
ROW, OTHER = DONE.row_id, "c" * 32


@pytest.fixture
def output(tmp_path: Path) -> Path:
    write_output(tmp_path, [DONE])
    write_log(tmp_path, (ROW, "out of memory"), (OTHER, "\x1b[2J forged\nline"), (ROW, "attempt 2"))
    return tmp_path


def test_the_lines_of_a_row_come_in_order_and_end_with_its_record(output: Path) -> None:
    shown = command("logs", output, ROW).stdout.splitlines()
    assert [line.partition("  worker-0")[2].strip() for line in shown[:2]] == ["out of memory", "attempt 2"]
    assert shown[0].startswith(NOON.isoformat(" ", "seconds")), "with its zone, as status prints times"
    worked_s = DONE.encode_s + DONE.denoise_s + DONE.decode_s + DONE.write_s
    assert f"done on {DONE.node}, attempt 1, in {worked_s:.1f} s" in shown[2] and shown[2].endswith(DONE.uri)
    values = [json.loads(line) for line in command("logs", output, ROW, "--json").stdout.splitlines()]
    assert [value["message"] for value in values[:2]] == ["out of memory", "attempt 2"]


def test_without_a_row_the_lines_of_all_are_shown_and_none_forges_another(output: Path) -> None:
    shown = command("logs", output).stdout
    assert len(shown.splitlines()) == 3 and OTHER in shown and "\x1b" not in shown


def test_what_happened_to_several_rows_at_once_is_one_line(tmp_path: Path) -> None:
    write_output(tmp_path, [DONE])
    lost = "its worker is lost: it died"
    write_log(tmp_path, *((row_id, lost) for row_id in (ROW, OTHER, WAITING.row_id)))
    write_log(tmp_path, (ROW, lost), at=NOON + timedelta(seconds=3))
    first, later = command("logs", tmp_path).stdout.splitlines()
    assert ROW in first and first.endswith("its worker is lost: it died (and 2 other rows)")
    assert ROW in later and later.endswith("it died")
    assert len(command("logs", tmp_path, "--json").stdout.splitlines()) == 4
    assert len(command("logs", tmp_path, OTHER).stdout.splitlines()) == 1


def test_a_row_is_shown_by_its_first_digits_and_by_its_clip_too(output: Path) -> None:
    whole = command("logs", output, OTHER).stdout
    assert command("logs", output, OTHER[:6]).stdout == whole != ""
    by_clip = command("logs", output, f"clips/a0/{ROW}-0123abcd.mp4").stdout
    assert command("logs", output, ROW[:6]).stdout == by_clip


def test_a_row_to_which_nothing_happened_is_an_answer_and_an_absent_one_an_error(output: Path) -> None:
    waiting = WAITING.row_id
    write_row_ids(output, waiting)
    calm = command("logs", output, waiting[:6])
    assert (calm.exit_code, calm.stdout) == (0, "")
    assert "nothing went wrong" in calm.stderr
    for absent, problem in (("f" * 32, "no row ffff"), ("f" * 6, "no row ffff"), ("f", "'f' is too short")):
        refused = command("logs", output, absent)
        assert (refused.exit_code, refused.stdout) == (2, "")
        assert problem in refused.stderr


def test_in_json_each_line_says_of_which_job_worker_and_row_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("framefleet")
    logger.addHandler(other := logging.NullHandler())  # whoever listens too takes nothing from the command
    with pytest.raises(SystemExit), reporting(verbose=False, log_format="json"):
        assert stderr.about is not None
        stderr.about["job"] = "s3://bucket/run-7"
        stderr.say("40 rows checked")
        about = {"worker": "worker-0", "row_id": ROW}
        logger.warning("a\nb %s", "\u2028", extra=about)
        complain("no", "do it")
        raise MemoryError
    logger.removeHandler(other)
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert all(line.pop("time") and line["job"] == "s3://bucket/run-7" for line in lines)
    assert [line["level"] for line in lines] == ["info", "warning", "error", "hint", "error", "hint"]
    assert about | {"message": "a\nb \u2028"} == {name: lines[1][name] for name in [*about, "message"]}
    assert stderr.about is None
