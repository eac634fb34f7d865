"""Commands to paste and texts of errors hold what others wrote only so that no shell or terminal obeys it."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

import framefleet
from framefleet.pipeline.errors import command, count_text, setting

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
        "{rows} rows",
        "{ratio} times",
        "{num_tensors} tensors",
        "{len(words)} prompts",
    ),
    "one is no mistake": (
        *("{len(candidates)} files", "{array.shape[0]} clips", "{len(matches)} rows"),
        *("{len(arrays)} frames", "{len(shapes)} different shapes", "{seeds.count(twice[0])} clips"),
    ),
    "one has words of its own": (
        *("%d frames", "{len(plan.lanes)} times", "{seeds} times", "{count} images", "{world_size} workers"),
        *("{num} GPUs", "{self.num_gpus} GPUs", "{cpu_workers} workers"),
    ),
    "several GPUs share a model": ("{needed} GPUs",),
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
