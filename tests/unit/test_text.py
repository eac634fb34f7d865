"""What others wrote obeys no shell and no terminal in commands and errors; and JSON is read strictly."""

from __future__ import annotations

import ast
import io
import logging
import re
import shlex
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st
from rich.table import Table
from rich.text import Text

import framefleet
from framefleet.jobs.show.console import EscapingConsole, GuardedStream
from framefleet.pipeline.errors import CONTROLS, JobError, command, count_text, escaped, setting
from framefleet.pipeline.guards.json_text import (
    MAX_DEPTH,
    Blank,
    JsonForm,
    canonical_json,
    parse_json,
    spell,
)

ROOT = Path(framefleet.__file__).parents[1]
SOURCES = [path for part in ("pipeline", "jobs", "cluster") for path in (ROOT / part).rglob("*.py")]
# A command or an option right before a value; what names a place, as `--set KEY: ...`, is none.
WRITTEN_OUT = re.compile(r"(framefleet [a-z]+( [a-z]+)?|--[a-z-]+|cp -rL) \0(?!\.\.\.|=?\0?: |$)")
# What is counted, right after its number, or one adjective later; "rows/s" is a rate.
MANY = re.compile(
    r"( (?!(about|besides|has|have|holds|nor|of|other|renders|without) )[a-z-]+)?? (rows|clips|frames|images"
    r"|prompts|seeds|steps|records|parts|files|workers|machines|GPUs|CPUs|drafts|groups|picks|previews|shapes"
    r"|shards|tensors|times)\b(?!/)"
)
LIMIT = re.compile(r"(\w+\.)*[A-Z_]+")
NEVER_ONE = {
    "a limit of two or more": ("{limit} frames", "{only} frames", "{longest} frames", "{least} frames"),
    "more than a limit": (
        "{num_frames} frames",
        "{ratio} times",
        "{num_tensors} tensors",
        "{len(words)} prompts",
    ),
    "one is no mistake": (
        *("{len(candidates)} files", "{array.shape[0]} clips", "{len(matches)} rows"),
        *("{len(arrays)} frames", "{len(shapes)} different shapes"),
    ),
    "one has words of its own": (
        *("%d frames", "{len(plan.lanes)} times", "{seeds} times", "{count} images", "{world_size} workers"),
        *("{num} GPUs", "{self.num_gpus} GPUs", "{cpu_workers} workers"),
    ),
    "several GPUs share a model": ("{needed} GPUs",),
    "a rate, and what it makes of seconds": ("{fps} frames", "{seconds * fps} frames"),
    "a system gives hundreds": ("{soft} files",),
    "a text, such as 4k + 1": ("{counts} frames", "{bounds} steps", "{shared(findings)} rows"),
}


@given(st.lists(st.text(), min_size=1))
def test_a_shell_reads_the_words_that_were_given(words: list[str]) -> None:
    assert shlex.split(command(*words)) == ["framefleet", *words]


@pytest.mark.parametrize("value", ["a b; touch PWN #", "$(id)", "'", True, ["a", "b c"], 2])
def test_a_setting_is_one_word(value: object) -> None:
    option, word = shlex.split(setting("inputs.roots", value))
    assert option == "--set"
    assert word.startswith("inputs.roots=")


def test_no_command_is_written_out_around_a_value() -> None:
    found = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = [part.value if isinstance(part, ast.Constant) else "\0" for part in node.values]
                if WRITTEN_OUT.search("".join(map(str, parts))):
                    found.append(f"{path}:{node.lineno}")
    assert SOURCES and not found, "use framefleet.pipeline.errors"


def counts_in(text: str) -> Iterator[str]:
    """Yield each number of a text for people that comes before a plural."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from (match[0] for match in re.finditer(f"%[dsg]({MANY.pattern})", node.value))
        for value, after in pairwise(node.values if isinstance(node, ast.JoinedStr) else ()):
            if isinstance(value, ast.FormattedValue) and isinstance(after, ast.Constant):
                match = MANY.match(str(after.value))
                if match and not LIMIT.fullmatch(number := ast.unparse(value.value)):
                    yield f"{{{number}}}{match[0]}"


def test_one_thing_is_not_counted_as_many() -> None:
    assert [count_text(num, "row") for num in (0, 1, 1.0, 1234, 0.5, 15.999000001)] == [
        *("0 rows", "1 row", "1 row", "1,234 rows", "0.5 rows", "15.999 rows"),
    ]
    paths = [*SOURCES, *(ROOT / "plugins").rglob("*.py"), *(ROOT / "framefleet").glob("*.py")]
    counts = {count: path for path in paths for count in counts_in(path.read_text())}
    fine = {count for some in NEVER_ONE.values() for count in some}
    assert counts.keys() == fine, "use framefleet.pipeline.errors.count_text, or say why it is never one"


def test_plain_values_of_as_many_levels_as_allowed_are_read() -> None:
    assert parse_json(b'{"a": [1, {"b": null}], "c": "[[["}') == {"a": [1, {"b": None}], "c": "[[["}
    assert parse_json("[" * MAX_DEPTH + "]" * MAX_DEPTH)
    with pytest.raises(ValueError, match="levels deep"):
        parse_json("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1))


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\xff\xfe\xfd",
        b"{",
        "[" * 100_000,
        '{"a":' * 100_000,
        "[" * 100_000 + "]" * 100_000,
        "9" * 10_000,
    ],
)
def test_damage_of_every_kind_is_a_value_error(text: str | bytes) -> None:
    with pytest.raises(ValueError):
        parse_json(text)


def value(prompt: Any, seed: Any, rest: Any) -> dict[str, Any]:
    return {"seed": seed, "arguments": {"prompt": prompt, "rest": rest}, "again": [prompt, "{}", "%s"]}


@given(prompt=st.text(), seed=st.integers(0, 2**63 - 1), rest=st.text())
def test_a_filled_form_is_the_whole_value(prompt: str, seed: int, rest: str) -> None:
    form = JsonForm(value(Blank(1), Blank(0), rest))
    assert form.filled([str(seed), spell(prompt)]) == canonical_json(value(prompt, seed, rest))
    assert JsonForm(["a", Blank(1)]).filled([spell(None), spell("b")]) == '["a","b"]', "a text too many"
    with pytest.raises(TypeError, match="object is not JSON"):
        JsonForm([object()])


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
