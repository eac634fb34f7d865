"""Every command that the README and the docs print can be typed: names, options, values, files."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

import click
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer
import yaml

from framefleet.jobs.cli import command_line
from framefleet.jobs.job.file import load_job
from framefleet.pipeline.outputs.parts.records import record_schema
from tests.each import check_each

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")), ROOT / "plugins/demo/shapes/README.md"]
PAGES.append(ROOT / "plugins/skill/SKILL.md")
PROGRAMS = ("framefleet", "make", "python")
PLACEHOLDER = "..."


def blocks(page: Path) -> list[str]:
    """The indented blocks of a page, each without its indentation."""
    found = re.findall(r"(?:^    .*\n)+", page.read_text("utf-8"), re.M)
    return [re.sub(r"^    ", "", block, flags=re.M) for block in found]


def typed(page: Path) -> Iterator[str]:
    """Return the lines of blocks, continued ones as one."""
    for block in blocks(page):
        yield from block.replace("\\\n", " ").splitlines()


def lines(page: Path) -> Iterator[str]:
    """Return commands of blocks, and those in a sentence, which may be without arguments."""
    yield from typed(page)
    yield from re.findall(r"`(framefleet [a-z][^`]*|make [a-z]+|python -m [^`]+)`", page.read_text("utf-8"))


def words_of(line: str) -> list[str]:
    """A command's words, from the program on; none where the line is no command."""
    if not re.match(r"([A-Z_]+=\S+ |\.venv/bin/)*(framefleet|make|python) ", line):
        return []
    words = shlex.split(line, comments=True)
    (first, *_) = [number for number, word in enumerate(words) if Path(word).name in PROGRAMS]
    words = [Path(words[first]).name, *words[first + 1 :]]
    return list(takewhile(lambda word: word not in (">", "|"), words))


PLACES = {"job.yaml", "try/job.yaml", "train.yaml", "animals.yaml"}  # the reader's own
FOLDERS = ("", "plugins/demo/shapes/train")  # where pages have their commands typed
COMMANDS = sorted({tuple(words) for page in PAGES for line in lines(page) if (words := words_of(line))})
TYPED = {tuple(words_of(line)) for page in PAGES for line in typed(page)}


def of(program: str) -> list[tuple[str, ...]]:
    return [command[1:] for command in COMMANDS if command[0] == program]


def test_framefleet_takes_each() -> None:
    assert {command[0] for command in COMMANDS} == set(PROGRAMS) and len(COMMANDS) > 50
    check_each(of("framefleet"), _framefleet_takes)


def _framefleet_takes(arguments: tuple[str, ...]) -> None:
    command, rest = typer.main.get_command(command_line()), list(arguments)
    context = click.Context(command)
    while hasattr(command, "get_command") and rest and rest[0] != PLACEHOLDER:
        found = command.get_command(context, rest[0])
        assert found is not None, f"no command {rest[0]}"
        command, rest = found, rest[1:]
    if not rest or rest[0] == PLACEHOLDER:
        return  # it is only named
    try:
        command.make_context(arguments[0], rest)
    except Exception as error:  # of typer's own copy of click
        if type(error).__name__ != "MissingParameter" or ("framefleet", *arguments) in TYPED:
            raise


def test_make_has_each_target() -> None:
    text = (ROOT / "Makefile").read_text("utf-8")
    wanted = {arguments[0] for arguments in of("make")}
    assert wanted
    assert wanted <= set(re.findall(r"^([\w.-]+):", text, re.M))


def test_python_finds_each_module_and_the_module_its_options() -> None:
    check_each([arguments for arguments in of("python") if arguments[0] != "-c"], _python_finds)


def _python_finds(arguments: tuple[str, ...]) -> None:
    option, module, *rest = arguments if arguments[0] == "-m" else ("", *arguments)
    if not option:
        assert any((ROOT / folder / module).is_file() for folder in FOLDERS)
        return
    folder = ROOT / module.removeprefix("framefleet.").replace(".", "/")
    (file,) = [path for path in (folder.with_suffix(".py"), folder / "__main__.py") if path.exists()]
    text = file.read_text("utf-8")
    shared = [
        ROOT / f"{name.replace('.', '/')}.py"
        for name in re.findall(r"from ((?:tests|tools)\.\S+) import", text)
    ]
    texts = [text, *(path.read_text("utf-8") for path in shared if path.exists())]  # parsers are shared
    for word in rest:
        if word.startswith("--"):
            assert any(f'"{word}"' in text for text in texts), word


def test_code_on_a_command_line_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run-7/records").mkdir(parents=True)
    table = record_schema(pa.schema([]), pa.schema([("prompt", pa.string())])).empty_table()
    pq.write_table(table, tmp_path / "run-7/records/part-0.parquet")
    monkeypatch.chdir(tmp_path)
    (code,) = [arguments[1] for arguments in of("python") if arguments[0] == "-c"]
    exec(compile(code, "typed", "exec"), {})
    assert "seed" in capsys.readouterr().out


def test_the_job_of_the_readme_is_one_and_those_of_examples_and_shapes_are_files() -> None:
    (text,) = [block for block in blocks(PAGES[0]) if block.startswith("table: ")]
    assert load_job(yaml.safe_load(text)).columns == {"prompt": "caption"}
    jobs = {word for command in of("framefleet") for word in command if word.endswith(".yaml")} - PLACES
    assert jobs
    assert not {job for job in jobs if not any((ROOT / folder / job).exists() for folder in FOLDERS)}
