"""Commands to paste and texts of errors hold what others wrote only so that no shell or terminal obeys it."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

import framefleet
from framefleet.pipeline.errors import CONTROLS, JobError, command, setting

SOURCES = [
    path
    for part in ("pipeline", "jobs", "cluster")
    for path in (Path(framefleet.__file__).parents[1] / part).rglob("*.py")
]
# A command or an option right before a value; what names a place, as `--set KEY: ...`, is none.
WRITTEN_OUT = re.compile(r"(framefleet [a-z]+( [a-z]+)?|--[a-z-]+|cp -rL) \0(?!\.\.\.|=?\0?: |$)")


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


def test_an_error_shows_controls_spelt() -> None:
    error = JobError("\x1b[31mred\u202e", "say \x07")
    assert not CONTROLS.search(str(error) + error.problem + error.fix)
