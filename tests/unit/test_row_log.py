"""What happened to a row is kept in the output, as far as its record does not say it."""

from __future__ import annotations

import json
import logging
from datetime import timedelta
from pathlib import Path

import pytest

import framefleet
from framefleet.jobs.render.survey import reasons
from framefleet.jobs.show.console import complain, reporting, stderr
from framefleet.pipeline.errors import Problem, Refused
from framefleet.pipeline.rows.tables.rows import InvalidRow
from tests.commands import command
from tests.outputs import write_log, write_output, write_row_ids
from tests.rows import NOON, failure, record

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


def test_each_failed_row_is_told_with_its_place_error_and_fix(tmp_path: Path) -> None:
    hinted = failure(row_id="1" * 32, row_indices=(8, 2), message="no file\nhint: check the URL")
    memory = failure(row_id="2" * 32, row_indices=(1,), error_type="OutOfMemory", message="9 GiB")
    write_output(tmp_path, failed=[hinted, memory])
    first, second = framefleet.failures(str(tmp_path))
    assert (first.positions, first.error_type, first.message) == ((1,), "OutOfMemory", "9 GiB")
    assert "offload" in first.fix
    assert (second.message, second.fix, second.attempts) == ("no file", "check the URL", 3)
    assert second.workers == ("worker-1", "worker-2")


def test_of_a_row_that_failed_twice_the_last_is_told(tmp_path: Path) -> None:
    write_output(tmp_path, failed=[failure(message="first")], run="000001-20260102T120000-89abcdef")
    write_output(tmp_path, failed=[failure(message="second")], run="000002-20260102T130000-89abcdef")
    assert [row.message for row in framefleet.failures(str(tmp_path))] == ["second"]


def test_they_stand_by_type_the_most_frequent_first_and_so_many_of_each(tmp_path: Path) -> None:
    rows = [failure(row_id=f"{number:032x}", row_indices=(number,)) for number in range(12)]
    rare = failure(row_id="f" * 32, error_type="WorkerDied", message="gone")
    write_output(tmp_path, failed=[rare, *rows])
    ended = command("failures", tmp_path, "--limit", "2", exits=0)
    lines = ended.stdout.splitlines()
    assert lines[0] == "ValueError: 12 rows"
    assert "  and 10 more: --limit, or --json for all" in lines
    assert "WorkerDied: 1 row" in lines
    assert "framefleet retry JOB.YAML" in ended.stderr.replace("\n", "")


def test_the_prompt_of_a_row_is_shown(tmp_path: Path) -> None:
    write_output(tmp_path, failed=[failure(arguments='{"prompt": "a fox\\nin the snow"}')])
    assert "    a fox\\nin the snow\n" in command("failures", tmp_path).stdout
    write_output(tmp_path / "bad", failed=[failure(arguments="[1]")])
    assert command("failures", tmp_path / "bad").exit_code == 0


def test_each_fix_of_a_row_that_was_left_out_says_which_value_it_is_for() -> None:
    height, frames, width = (
        Problem(name, value, Refused(reason="it is odd", fix=fix))
        for name, value, fix in [("height", 7, "use 8"), ("num_frames", 80, "use 81"), ("width", 7, "use 8")]
    )
    assert reasons(InvalidRow(index=3, problems=(height, width)))["fix"] == "use 8"
    assert reasons(InvalidRow(index=3, problems=(height, frames))) == {
        "row_index": 3,
        "reason": "height is 7, but it is odd; num_frames is 80, but it is odd",
        "fix": "height: use 8; num_frames: use 81",
    }


def test_types_can_be_chosen_and_tracebacks_shown(tmp_path: Path) -> None:
    other = failure(row_id="f" * 32, error_type="WorkerDied", traceback="")
    write_output(tmp_path, failed=[failure(traceback="Traceback:\n  here"), other])
    shown = command("failures", tmp_path, "--error", "ValueError", "--traceback")
    assert "    |   here" in shown.stdout and "WorkerDied" not in shown.stdout
    misspelt = command("failures", tmp_path, "--error", "valueerror").stderr
    assert "failed with that error; there are " in misspelt
    assert "ValueError (1)" in misspelt and "WorkerDied (1)" in misspelt
    hint = "to see tracebacks: framefleet failures"
    assert hint in command("failures", tmp_path).stderr and hint not in shown.stderr
    assert hint not in command("failures", tmp_path, "--error", "WorkerDied").stderr
    write_output(tmp_path / "none")
    none = command("failures", tmp_path / "none")
    assert (none.exit_code, none.stdout, "no row of" in none.stderr) == (0, "", True)


def test_json_has_a_line_for_each(tmp_path: Path) -> None:
    write_output(tmp_path, failed=[failure(message="\x1b[31m\x9b\u2028")])
    (line,) = command("failures", tmp_path, "--json").stdout.splitlines()
    told = json.loads(line)
    assert (told["row_id"], told["message"]) == ("0" * 32, "\x1b[31m\x9b\u2028")
    assert told["failed_at"].startswith("2026-01-02T12:00:00")


def test_messages_forge_no_lines_and_flood_no_terminal(tmp_path: Path) -> None:
    bad = failure(message="one\nValueError: 9 rows\x1b[2J" + "x" * 100_000, error_type="A\nB")
    write_output(tmp_path, failed=[bad])
    printed = command("failures", tmp_path).output
    assert len(printed) < 2000 and "\x1b" not in printed
    assert printed.splitlines()[0] == "A\\nB: 1 row"
