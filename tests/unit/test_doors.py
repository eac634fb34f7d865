"""Plugins of other packages add commands and listeners; one that cannot be used is named, with the fix."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from framefleet import JobError, Output, PluginError, Store, read_records
from framefleet.api.jobs import load_job, notes
from framefleet.jobs.cli import command_line
from framefleet.jobs.job.columns import step_columns
from framefleet.pipeline import plugin as loading
from framefleet.pipeline.guards.own_python import python
from framefleet.pipeline.plugin import broken_plugins, listeners, plugins, values_of_plugins
from framefleet.pipeline.rows.tables.table import open_table
from framefleet.plugins.scores.clip_scores import open_scores
from framefleet.plugins.scores.section import ScoresSection
from tests.commands import command
from tests.jobs import write_job
from tests.small_output import rendered

Install = Callable[..., None]
ROOT = Path(__file__).parents[2]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Yield what installs a package with one plugin, as pip leaves it, and undo it afterwards."""
    monkeypatch.syspath_prepend(tmp_path)
    before = {*sys.modules}

    def write(name: str, code: str, *, value: str) -> None:
        (tmp_path / f"{name}_package.py").write_text(dedent(code))
        about = tmp_path / f"{name}_package-1.0.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}-package\nVersion: 1.0\n")
        (about / "entry_points.txt").write_text(f"[framefleet.plugins]\n{name} = {value}\n")
        loading._loaded.cache_clear()
        command_line.cache_clear()

    yield write
    loading._loaded.cache_clear()
    command_line.cache_clear()
    for name in {*sys.modules} - before:
        if name.endswith("_package"):
            del sys.modules[name]


def test_ours_come_first_and_have_a_name_of_their_own() -> None:
    names = [*plugins()]
    assert names[:4] == ["watch", "forecast", "keep", "models"]
    assert len(names) == len({*names})


def test_a_package_adds_a_command(install: Install) -> None:
    code = """
        from typer import BadParameter, Exit

        from framefleet.api import Plugin
        from framefleet.api.errors import JobError

        def wave_command(to: str = "you") -> None:
            '''Wave.'''
            if to == "nobody":
                raise JobError("nobody is here", "wave to somebody")
            if to == "a wall":
                raise Exit(5)
            if to == "a number":
                raise BadParameter("no numbers")
            print("hello")

        PLUGIN = Plugin(commands={"Use clips": ["wave_package:wave_command"]})
    """
    install("wave", code, value="wave_package:PLUGIN")
    assert command("wave").stdout == "hello\n"
    refused = command("wave", "--to", "nobody", exits=2)
    assert "hint: wave to somebody" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert "Traceback" in command("wave", "--to", "nobody", "--verbose", exits=2).stderr
    command("wave", "--to", "a wall", exits=5)
    assert "no numbers" in command("wave", "--to", "a number", exits=2).stderr


def test_a_package_adds_a_score_that_jobs_and_commands_name(install: Install, tmp_path: Path) -> None:
    code = """
        from framefleet.api import Plugin

        def warmth(frames, record):
            return frames[..., 0].mean() + record["seed"]

        PLUGIN = Plugin(columns={"warm": "warm_package:warmth"})
    """
    install("warm", code, value="warm_package:PLUGIN")
    rendered(Store(str(tmp_path / "out")), 2)
    misspelt = run(tmp_path, "score", str(tmp_path / "out"), "--scores", "warn")
    assert (misspelt.returncode, "did you mean 'warm'?" in misspelt.stderr) == (2, True), misspelt.stderr
    scored = run(tmp_path, "score", str(tmp_path / "out"), "--scores", "warm")
    assert (scored.returncode, "2 clips scored" in scored.stderr) == (0, True), scored.stderr
    first, second = read_records(str(tmp_path / "out")).to_pylist()
    assert first["warm"] < 3 < second["warm"] < 14
    job = {"table": "t", "output": "o", "model": "m", "scores": ["warm", "motion"]}
    assert step_columns(load_job(job)) == ["warm", "motion"]


DOORS = "from framefleet.api import *\n"
SECTION = "from framefleet.jobs.job.section import Section\nclass S(Section):\n    a: int = 1\n"
BROKEN = [  # source, what its Plugin has (M: the module), what is said
    ("import nowhere_at_all", "", "No module named 'nowhere_at_all'"),
    ("import sys; sys.exit(3)", "", "SystemExit: 3"),
    ("Plugin = dict", "", "M:PLUGIN is a dict"),
    ("", "commands=['M:f']", "commands of M:PLUGIN is ['M:f']"),
    ("", "commands={'Use clips': 'M:f'}", "commands.Use clips of M:PLUGIN is 'M:f'"),
    ("", "commands={'Use clips': ['M:f']}", "M:f cannot be imported: AttributeError"),
    ("f = 3", "commands={'Use clips': ['M:f']}", "M:f cannot be a command: "),
    ("def f(x: 'Unknown'): 'F.'", "commands={'Use clips': ['M:f']}", "M:f cannot be a command: NameError"),
    ("def render(): 'R.'", "commands={'Render': ['M:render']}", "there is a command named render already"),
    ("", "sections={'mine': 'M:S'}", "M:S cannot be imported: AttributeError"),
    ("S = {}", "sections={'mine': 'M:S'}", "M:S is not a subclass of SectionFacts"),
    (SECTION, "sections={'marks': 'M:S'}", "another plugin has the section 'marks'"),
    (f"{SECTION}    b: int", "sections={'mine': 'M:S'}", "M:S cannot be made without arguments: Validation"),
    ("", "file_steps={'mine': 'M:S'}", "it has a file step for the section 'mine', which no plugin adds"),
    ("", "columns_of_sections={'mine': 'M:f'}", "it has columns for the section 'mine'"),
    ("", "late_columns_of_sections={'mine': 'M:f'}", "it has columns for the section 'mine'"),
    ("", "section_columns={'mine': ['sum']}", "it has columns for the section 'mine'"),
    ("", "inner_outputs={'inner': 'mine'}", "it has an inner output for the section 'mine'"),
    ("class R(JobRunner): pass", "runners=['M:R']", "M:R lacks render, which JobRunner asks for"),
    ("class R(JobRunner): render = 1", "runners=['M:R']", "it has a runner for the section ''"),
    ("class R: section = 'post'", "runners=['M:R']", "M:R is not a subclass of JobRunner"),
    ("", "export_formats={'hf': 'M:F'}", "another plugin has 'hf' in its `export_formats`"),
    ("class L(Listener):\n    def __init__(self): [][0]", "listeners=['M:L']", "M:L cannot be made"),
    ("F = 3", "families=['M:F']", "M:F cannot be used: TypeError"),
    ("F = [3]", "recipes=['M:F']", "M:F cannot be used: TypeError: it is not a sequence of Recipe"),
    ("F = [3]", "families=['M:F']", "M:F cannot be used: TypeError: it is not a sequence of Family"),
]


def in_package(text: str, name: str = "broken") -> str:
    return text.replace("M:", f"{name}_package:")


def source(code: str, values: str, name: str = "broken") -> str:
    return in_package(f"{DOORS}{code}\nPLUGIN = Plugin({values})", name)


@pytest.mark.parametrize(("code", "values", "problem"), BROKEN)
def test_a_plugin_that_cannot_be_used_is_named_and_stops_only_jobs_that_may_need_it(
    install: Install, code: str, values: str, problem: str
) -> None:
    install("broken", source(code, values), value="broken_package:PLUGIN")
    assert command("--version").exit_code == command("stop", "--help").exit_code == 0
    for _ in range(2):
        values_of_plugins("families")
        values_of_plugins("recipes")
        listeners()
    (error,) = broken_plugins()
    assert error.problem.startswith("plugin broken") and in_package(problem) in error.problem
    job = {"table": "t", "output": "o", "model": "m"}
    assert load_job(job).table == "t"
    with pytest.raises(PluginError) as raised:
        load_job({**job, "theirs": {}})
    assert (raised.value, raised.value.exit_code) == (error, 2)


@pytest.mark.parametrize(
    ("code", "values", "problem"),
    [
        (
            "from framefleet.pipeline.outputs.file_step import FileStep\nclass F(FileStep): pass",
            "file_steps={'mine': 'M:F'}",
            "M:F lacks open, which FileStep asks for",
        ),
        (
            "from framefleet.pipeline.outputs.file_step import FileStep\n"
            "class F(FileStep):\n    def open(section, folder): return 7",
            "file_steps={'mine': 'M:F'}",
            "mine: `open` of M:F returned int",
        ),
        ("def f(section, folder): ...", "columns_of_sections={'mine': 'M:f'}", "M:f returned NoneType"),
    ],
)
def test_what_a_section_lacks_is_named_where_a_job_has_it(
    install: Install, tmp_path: Path, code: str, values: str, problem: str
) -> None:
    values = f"sections={{'mine': 'M:S'}}, {values}"
    install("broken", source(SECTION + code, values), value="broken_package:PLUGIN")
    job = write_job(tmp_path / "job.yaml", {"table": "t", "output": "o", "model": "m", "mine": {"a": 2}})
    planned = run(tmp_path, "plan", job)
    assert planned.returncode == 2, planned.stderr
    assert in_package(problem) in planned.stderr.splitlines()[0]


def test_a_source_of_rows_is_no_folder_of_videos_unless_it_has_any(install: Install, tmp_path: Path) -> None:
    code = """
        import pyarrow as pa
        from framefleet.api import Plugin
        from framefleet.pipeline.rows.tables.table_source import TableSource

        class Lines(TableSource):
            def rows(self, filesystem, path, location):
                return pa.table({"prompt": ["a fox"]}) if path.endswith("lines") else ["a fox"]

        PLUGIN = Plugin(tables={"lines": "lines_package:Lines"})
    """
    install("lines", code, value="lines_package:PLUGIN")
    table = open_table(f"lines://{tmp_path}/lines")
    assert (table.num_rows, table.media) == (1, None)
    with pytest.raises(PluginError, match="`rows` of Lines returned list"):
        open_table(f"lines://{tmp_path}/others")


def test_a_score_that_framefleet_has_too_is_refused(install: Install) -> None:
    values = "columns={'sharpness': 'M:f', 'crisp': 'M:f'}"
    install("sharp", source("def f(frames, record): return 1", values, "sharp"), value="sharp_package:PLUGIN")
    assert [score.name for score in open_scores(ScoresSection(["crisp"]))] == ["crisp"]
    with pytest.raises(JobError, match="'sharpness' is a score of framefleet, and of an installed plugin"):
        open_scores(ScoresSection(["sharpness"]))


def test_a_clip_in_the_format_of_a_plugin_is_not_called_changed(install: Install, tmp_path: Path) -> None:
    install("arrays", source("", "suffixes=['.npy']", "arrays"), value="arrays_package:PLUGIN")
    (record,) = rendered(Store(str(tmp_path / "out")), 1)
    clip = tmp_path / "out" / record["path"]
    clip.with_suffix(".npy").write_bytes(b"array")
    path = record["path"].replace(".mp4", ".npy")
    theirs = {"path": path, "bytes": 5, "media_sha256": hashlib.sha256(b"array").hexdigest()}
    with pytest.raises(JobError, match=r"cannot be decoded: \.npy is the format of a plugin"):
        Output.open(str(tmp_path / "out")).frames(record | theirs)


def test_a_listener_that_raises_hides_no_line_of_others(install: Install, tmp_path: Path) -> None:
    code = "class L(Listener):\n    def notes(self, store): return [][0]"
    install("broken", source(code, "listeners=['M:L']"), value="broken_package:PLUGIN")
    assert notes(Store(str(tmp_path))) == []
    (error,) = broken_plugins()
    assert error.problem.startswith("listener: broken_package:L cannot be asked: IndexError")


def test_two_plugins_of_one_name_are_not_both_used(install: Install) -> None:
    install("export", source("", ""), value="export_package:PLUGIN")
    (error,) = broken_plugins()
    assert error.problem.startswith("plugin export of the package export-package: another plugin")


def test_a_package_adds_a_recipe_whose_code_decides_row_ids(install: Install, tmp_path: Path) -> None:
    install("loops", source("", "recipes=['more_films:RECIPES']"), value="loops_package:PLUGIN")
    (tmp_path / "more_films.py").write_text(
        "from framefleet.pipeline.recipes.recipe import recipe_from\n"
        "def loop(pipe, request): ...\n"
        "def extend(pipe, request): ...\n"
        "def narrow(pipe): ...\n"
        "RECIPES = [recipe_from(loop), recipe_from(extend), recipe_from(narrow)]\n"
    )
    code = (
        "from framefleet.pipeline.recipes.catalog import BUILT_IN\n"
        "from framefleet.pipeline.rows.identity import lane_named\n"
        "loop = BUILT_IN['loop']\n"
        "print(len(loop.digest), loop.is_batched, BUILT_IN['extend'].digest, *lane_named('', 'loop'))"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    shown = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert shown.stdout == "64 False None  loop\n"
    assert "a plugin's recipe 'extend' is not used" in shown.stderr
    assert "recipe 'narrow' takes (pipe), not (pipe, request)" in shown.stderr


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "framefleet", *arguments]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}
    return subprocess.run(words, cwd=folder.parent, env=environment, capture_output=True, text=True)


def test_a_broken_plugin_stops_no_command_that_opens_no_job(install: Install, tmp_path: Path) -> None:
    values = "sections={'media': 'M:S', 'model': 'M:S'}"
    install("broken", source(SECTION, values), value="broken_package:PLUGIN")
    problem = "plugin broken: it adds the section 'media', which every job file has"
    stopped = run(tmp_path, "stop", "nowhere").stderr.splitlines()
    assert "nowhere does not exist" in stopped[0] and stopped[-1].startswith(f"warning: {problem}; ")
    (tmp_path / "job.yaml").write_text("table: t\noutput: o\nmodel: m\n")
    planned = run(tmp_path, "plan", str(tmp_path / "job.yaml"))
    assert (planned.returncode, planned.stderr.count(problem)) == (2, 1), planned.stderr


def test_a_bug_of_a_plugin_is_not_called_one_of_framefleet(install: Install, tmp_path: Path) -> None:
    values = "commands={'Use clips': ['M:wave']}, sections={'mine': 'M:S'}"
    code = source(f"{SECTION}def wave(): 'Wave.'; [][0]", values, "wave")
    install("wave", code, value="wave_package:PLUGIN")
    ended = run(tmp_path, "wave")
    assert ended.returncode == 70 and "a bug in the plugin wave: IndexError" in ended.stderr
    schema = run(tmp_path, "schema")
    assert '"mine"' in schema.stdout, schema.stderr  # whose class has no docstring


def test_what_lies_in_the_current_folder_is_not_installed(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "typer.py").write_text("raise SystemExit('a module of the folder ran')")
    install("wave", "raise SystemExit('a plugin of the folder ran')", value="wave_package:PLUGIN")
    monkeypatch.chdir(tmp_path)  # which is first on the path, as for `python -c`
    code = "from framefleet.pipeline import plugin as p; print('wave' in p.plugins(), p.broken_plugins())"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "False []\n"
    shown = subprocess.run([sys.executable, "-m", "framefleet", "--version"], capture_output=True, text=True)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert subprocess.run(python("-c", "import wave_package"), capture_output=True).returncode == 1


def test_every_python_is_started_without_the_current_folder() -> None:
    """Ray starts the others, by `-IS` or in folders of its own."""
    folders = [ROOT / package for package in ("pipeline", "cluster", "jobs", "plugins")]
    sources = (path for folder in folders for path in folder.rglob("*.py"))
    starting = {path.name for path in sources if "sys.executable" in path.read_text()}
    assert starting == {"own_python.py", "start.py", "relay.py"}
