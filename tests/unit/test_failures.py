"""Rows that failed are listed: which, why, what to do, and how to try them again."""

from __future__ import annotations

import json
from pathlib import Path

import framefleet
from tests.commands import command
from tests.outputs import write_output
from tests.rows import failure


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
