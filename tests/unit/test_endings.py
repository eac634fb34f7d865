"""How commands end, and what they print of others' texts: no traceback, no control, no secret."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from framefleet.jobs.show.console import reporting, this_command
from tests.commands import command
from tests.unit.test_cli import environment, run


@pytest.mark.promise("exit code 70")
@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (ValueError("no such\nthing"), 70, "error: a bug in framefleet: ValueError: no such"),
        (RecursionError("too deep"), 70, "error: a bug in framefleet: RecursionError: too deep"),
        (MemoryError(), 3, "error: out of memory"),
        (OSError(errno.ENOSPC, "No space left on device"), 3, "error: [Errno 28] No space left on device"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_what_nobody_expected_is_no_traceback_and_no_failed_row(
    error: BaseException, code: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("framefleet.jobs.job.file.load_job", raising(error))
    ended = command("plan")
    assert ended.exit_code == code
    assert ended.stderr.partition("\n")[0] == said
    assert "Traceback" not in ended.stderr
    assert code != 70 or "in load_job" in command("plan", "--verbose").stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interruption_that_a_library_made_another_error_of_is_still_one(number: int, code: int) -> None:
    with pytest.raises(SystemExit) as ended, reporting(verbose=False):
        try:
            signal.raise_signal(number)
        except KeyboardInterrupt:
            raise ValueError("the library's own") from None
    assert ended.value.code == code


def raising(error: BaseException) -> Callable[..., None]:
    def load_job(*_: object, **__: object) -> None:
        raise error

    return load_job


def test_an_interruption_while_imports_are_under_way_is_no_traceback() -> None:
    script = (
        "import sys\n"
        "class Interrupts:\n"
        "    def find_spec(name, *_):\n"
        "        if name == 'typer': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupts)\n"
        "from framefleet.__main__ import main; main()"
    )
    ended = subprocess.run([sys.executable, "-c", script], env=environment(), capture_output=True)
    assert (ended.returncode, ended.stderr) == (130, b"")


@pytest.mark.promise("exit code 141")
def test_a_reader_that_leaves_ends_a_command_without_a_word() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    schema = [sys.executable, "-m", "framefleet", "schema"]
    ended = subprocess.run(schema, env=environment(), stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (141, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_under_the_output_is_told_and_a_command_goes_on_when_only_its_messages_are_lost() -> None:
    ours = [sys.executable, "-m", "framefleet"]
    with open("/dev/full", "wb") as full:
        version = [*ours, "--version"]
        ended = subprocess.run(version, env=environment(), stdout=full, stderr=subprocess.PIPE, text=True)
        assert subprocess.run([*ours, "plan", "nowhere"], env=environment(), stderr=full).returncode == 2
    assert ended.returncode == 3
    assert ended.stderr.startswith("error: standard output cannot be written: No space left on device\n")


def test_controls_in_a_name_are_spelt_and_ascii_terminals_see_the_rest() -> None:
    name = "猫\x1b]52;c;eA==\x07\u202e[/red].yaml"
    ended = run("plan", name, PYTHONIOENCODING="ascii")
    assert "error: job file \\u732b\\x1b]52;c;eA==\\x07\\u202e[/red].yaml cannot be read" in ended.stderr
    assert ended.returncode == 2
    assert "猫\\x1b]52;c;eA==\\x07\\u202e" in run(name).stderr  # typer's own message


@pytest.mark.parametrize(
    "arguments",
    [
        "render --set storage_optons.secret=SECRET",
        "render --set storage_options.secret:SECRET",
        "render --set storage_options.secret=*SECRET",
        "render --set storage_options.secret=!SECRET",
        "render --set storage_options=SECRET",
        "render --set fleet.address.secret=SECRET",
        "render --set defaults.options.secret=SECRET",
        "render --set output.secrt=SECRET",
        "render --set fleet.workers=https://me:SECRET@host/x?sig=SECRET",
        "replay out 00 --set storage_option.secret=SECRET",
        "replay out 00 --lora https://me:SECRET@host/x",
        "replay s3://me:SECRET/a@bucket 00 --set storage_options.secret=SECRET",
        "model info ftp://me:SECRET#a@127.0.0.1:1/model",
    ],
)
def test_no_mistake_shows_a_secret(arguments: str) -> None:
    secret = f"c4n4ry-{uuid.uuid4().hex}"
    given = arguments.replace("SECRET", secret).split()
    needed = ["--table", "t.csv", "--model", "m", "--output", "o"] if given[0] == "render" else []
    ended = command(*given, *needed, "--verbose", exits=2)
    assert "error: " in ended.stderr
    assert secret not in ended.output


def test_the_command_that_resumes_is_shown_without_its_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    typed = "render job.yaml --set=storage_options.secret=SECRET --set storage_options.key=SECRET "
    typed += "--set on_end.command=[notify,SECRET] --set on_end.when=failed "
    typed += "--set fleet.workers=2 --output https://me:SECRET@host/x?sig=SECRET"
    monkeypatch.setattr(sys, "argv", ["framefleet", *typed.split()])
    assert this_command() == (
        "framefleet render job.yaml '--set=storage_options.secret=***' --set 'storage_options.key=***' "
        "--set 'on_end.command=***' --set on_end.when=failed "
        "--set fleet.workers=2 --output https://host/x (its secrets are not shown)"
    )


@pytest.mark.parametrize("mark", ["*", "!", "&a &", "!!int ", "[", "\n    *"])
def test_a_secret_of_a_job_file_that_is_no_yaml_is_not_quoted(mark: str, tmp_path: Path) -> None:
    secret = uuid.uuid4().hex
    (tmp_path / "job.yaml").write_text(f"table: t.csv\nstorage_options:\n  secret: {mark}{secret}\n")
    for option in ([], ["--verbose"]):
        ended = command("plan", tmp_path / "job.yaml", *option)
        assert ended.exit_code == 2 and "not YAML" in ended.stderr
        assert secret not in ended.stderr


@pytest.mark.parametrize("typed", ["plan job.yaml storage_options.secret=SECRET", "plan --key=SECRET"])
def test_a_secret_that_was_typed_in_the_wrong_place_is_not_shown(typed: str) -> None:
    secret = uuid.uuid4().hex
    ended = run(*typed.replace("SECRET", secret).split())
    assert ended.returncode == 2
    assert secret not in ended.stdout + ended.stderr
