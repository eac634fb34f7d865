"""What reaches a terminal: texts of others without controls, our own colours, and no traceback at the end."""

from __future__ import annotations

import io
import logging

import pytest
from hypothesis import given, strategies as st
from rich.table import Table
from rich.text import Text

from framefleet.jobs.show.console import EscapingConsole, GuardedStream
from framefleet.pipeline.errors import CONTROLS, JobError, escaped

EVIL = "\x1b]52;c;ZXZpbA==\x07 \x9b31m \u202egnp.exe \u2028 \ufeff \udc80 \r\b"
HARMLESS = "一只猫 🏴󠁧󠁢󠁥󠁮󠁧󠁿 👩‍👩‍👧 Ünïcödé עברית\t[bold]x[/] [/red] :smile:\n"


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


@given(st.text(st.characters(codec=None)))  # lone surrogates too
def test_nothing_that_a_terminal_obeys_is_left_in_any_text(text: str) -> None:
    shown = escaped(text)
    assert not CONTROLS.search(shown)
    shown.encode("utf-8")
    assert escaped(shown) == shown


def test_controls_are_spelt_and_languages_stay_as_they_are() -> None:
    assert escaped(EVIL) == (r"\x1b]52;c;ZXZpbA==\x07 \x9b31m \u202egnp.exe \u2028 \ufeff \udc80 \x0d\x08")
    assert escaped(HARMLESS) == HARMLESS
    assert not CONTROLS.search(str(error := JobError(EVIL, EVIL)) + error.problem + error.fix)


def test_a_console_takes_texts_as_texts_wherever_they_stand() -> None:
    shown = io.StringIO()
    console = EscapingConsole(file=shown, width=300)
    console.say(EVIL + HARMLESS)
    console.say(Text(EVIL + HARMLESS))
    table = Table(EVIL, "[bold]x[/] [/red] :smile:")
    table.add_row("[bold]x[/] [/red] :smile:", EVIL)
    console.print(table)
    with console.status(f"reading {EVIL}[/red]"):
        pass
    assert not CONTROLS.search(shown.getvalue())
    assert shown.getvalue().count("[bold]x[/] [/red] :smile:") == 4
    shown, table = io.StringIO(), Table("path")
    table.add_row("x" * 300)
    EscapingConsole(file=shown).print(table)
    assert "x" * 300 in shown.getvalue(), "nothing is cut where no terminal is"


def test_a_consoles_own_colours_stay() -> None:
    shown = Screen()
    console = EscapingConsole(file=shown, force_terminal=True, color_system="standard")
    console.print(Text("error: ", style="bold red").append(EVIL))
    assert "\x1b[1;31merror: " in shown.getvalue()
    assert "\x1b]52" not in shown.getvalue()


def test_a_guarded_stream_spells_controls_whoever_writes() -> None:
    shown = io.StringIO()
    stream = GuardedStream(shown)
    print(EVIL, file=stream)
    logging.StreamHandler(stream).emit(logging.makeLogRecord({"msg": EVIL}))
    stream.writelines([EVIL])
    assert not CONTROLS.search(shown.getvalue())


def test_progress_bars_of_libraries_move_on_a_terminal_and_nothing_else_does() -> None:
    shown = Screen()
    GuardedStream(shown).write("\r\x1b[A\x1b[1;32m50 %\x1b[0m \x1b[2J \x1b]0;title\x07")
    assert shown.getvalue() == "\r\x1b[A\x1b[1;32m50 %\x1b[0m \\x1b[2J \\x1b]0;title\\x07"


def test_styled_texts_pass_without_their_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_of-this-test")
    shown = io.StringIO()
    GuardedStream(shown).styled.write("\x1b[1;31mhf_of-this-test\x1b[0m")
    assert shown.getvalue() == "\x1b[1;31m***\x1b[0m"
