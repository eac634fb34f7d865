"""`python -m tools.house`: what texts name is found where it is gone; public names and versions are whole."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterable
from importlib import import_module
from pathlib import Path

import click
import pytest

import framefleet
from framefleet.lazy_names import homes
from tools.house.commands import unknown_commands, unknown_modules, unknown_targets, unread_variables
from tools.house.cycles import MAX_FILES, import_cycles, wide_circles
from tools.house.dotted import lost_imports, lost_members, lost_modules
from tools.house.figures import arrows_between_siblings, figures
from tools.house.help_texts import help_problem, help_texts, poor_help
from tools.house.house import Finding, House, read_house
from tools.house.keys import unknown_keys
from tools.house.links import anchors, broken_links
from tools.house.markers import conflict_markers
from tools.house.measurements import block, stray_measurements
from tools.house.paths import lost_documents, lost_paths
from tools.house.rooms import poor_records, poor_rooms
from tools.house.tests_at_doors import doors_in
from tools.house.twice import doubled_names

RENDER = """
SIZE = 1

class Base:
    def begin(self): ...

class Renderer(Base):
    rows: int
    def __init__(self): self.capacity = 1
    def step(self): ...
"""
TEXTS = {
    "pyproject.toml": 'dependencies = [\n    "torch>=2",\n]\n',
    "Makefile": "check:\n\ttrue\n",
    "docs/options.md": "# Options\n## Step caches, and more\n",
    "framefleet/__init__.py": "if TYPE_CHECKING:\n    from framefleet.pipeline.render import Renderer\n",
    "pipeline/__init__.py": "",
    "pipeline/render/__init__.py": "",
    "pipeline/render/renderer.py": RENDER,
    "pipeline/rows/table.py": 'import os\nCLIPS = "clips"\nos.environ["FRAMEFLEET_CACHE"]\n',
    "tools/fuzz/__main__.py": "",
}
Check = Callable[[House], Iterable[Finding]]


def problems(check: Check, text: str, path: str = "pipeline/README.md") -> list[str]:
    return [found.problem for found in check(House({**TEXTS, path: text})) if found.path == path]


@pytest.mark.parametrize(
    ("text", "is_refused"),
    [
        ("It renders 4.9 rows/s.", True),
        ("Planning took 17 s, on\ntwo cores.", True),
        ("That is 1.4 times as fast as a loop.", True),
        ("| read a table | JSONL 150,000 rows/s |", True),
        ("Of its forwards, 2 % took the slow way: 81 CPU seconds.", True),
        ("From `python -m tools.benchmarks.load`:\n\n| files | s |\n|---|---|\n| bf16 | 0.18 |", True),
        ("[NVIDIA](https://example.com/mlperf) renders 0.059 samples/s.", False),
        ("Workers have `retries.drain_s` (120 s) to store clips.", False),
        ("    1/1 rows, 1.56 rows/s, mean batch 1.0", False),
        ("| `timeout_s` | at most 10 s |", False),
        (block("load", "| bf16 | 150,000 rows/s |\n"), False),
        (block("load", "| bf16 | 150,000 rows/s |\n").replace("150", "151"), True),
        ("<!-- measured: load -->\n| 0.18 s |\n<!-- end -->", True),
    ],
)
def test_a_measured_figure_stands_where_a_tool_wrote_it(text: str, is_refused: bool) -> None:
    assert bool(problems(stray_measurements, text, "docs/speed.md")) is is_refused
    for path in ("cluster/README.md", "docs/why/fleet.md"):  # for those who work on it
        assert not problems(stray_measurements, text, path)


README = "# rows: in and out\n\n    table -> table.py -> rows\n"


@pytest.mark.parametrize(
    ("readme", "problem"),
    [
        (README, ""),
        (None, "has 4 Python files and no README"),
        (README + "a\n" * 60, "has 63 lines, over 60"),
        ("# rows: in and out\n", "has no picture"),
        (README + "see page/gone.js", "page/gone.js does not exist in pipeline/rows/"),
        (README + "see page/main.js, https://x.org/gone.js", ""),
    ],
)
def test_a_room_has_a_short_readme_with_a_picture(readme: str | None, problem: str) -> None:
    texts = {f"pipeline/rows/{name}.py": "" for name in ("__init__", "a", "b", "c", "table")}
    texts |= {"pipeline/rows/page/main.js": ""} | (
        {} if readme is None else {"pipeline/rows/README.md": readme}
    )
    problems = [finding.problem for finding in poor_rooms(House(texts))]
    assert len(problems) == bool(problem) and all(problem in one for one in problems)
    small = {f"pipeline/rows/{name}.py": "" for name in "abc"}  # which its parent may describe
    assert not [*poor_rooms(House(small | {"tools/a/b.py": ""}))]


def test_a_record_of_decisions_is_short_and_listed() -> None:
    index = {"docs/why/README.md": "[a](a.md)"}
    assert not [*poor_records(House(index | {"docs/why/a.md": "a\n" * 120}))]
    assert [*poor_records(House(index | {"docs/why/a.md": "a\n" * 121}))]
    assert [*poor_records(House(index | {"docs/why/b.md": ""}))]


@pytest.mark.parametrize("marker", ["<" * 7 + " HEAD", "|" * 7 + " base", "=" * 7, ">" * 7 + " branch"])
def test_a_conflict_marker_is_found_in_any_text(marker: str) -> None:
    assert problems(conflict_markers, f"a\n{marker}\nb\n", "some/prompts.csv")
    assert not problems(conflict_markers, f"a\n  {marker}\n", "some/prompts.csv")


@pytest.mark.parametrize(
    ("check", "gone", "there"),
    [
        (lost_paths, "see `render/gone.py`", "see `render/renderer.py`"),
        (lost_paths, "see gone.py for why", "see render/renderer.py for why"),
        (lost_paths, "`renderer.py`", "`pipeline/render/renderer.py`"),  # not in this folder
        (lost_paths, "(docs/gone.md)", "(docs/options.md)"),
        (lost_paths, "`render/*_gone.py`", "`render/*.py`, `*/table.py`"),
        (lost_paths, "`pipeline/NAME/gone.py`", "`pipeline/NAME/renderer.py`"),

        (lost_paths, "-> ../render/gone.py", "-> ../docs/options.md, ../pipeline/rows/table.py"),
        (lost_paths, "-> ../rows/table.py", "-> ../pipeline/rows"),  # not seen from here
        (lost_paths, "below gone/, say", "below rows/, say, or an output's `clips/`"),
        (lost_paths, "`render/renderer.py:gone`", "`render/renderer.py:SIZE`"),
        (lost_paths, "`render/renderer.py:Renderer.gone`", "`render/renderer.py:Renderer.step`"),
        (lost_paths, "`gone.py`", "`my_gone.py` of yours, https://x.org/gone.py, github.com/a/b gone.py"),


        (lost_modules, "framefleet.pipeline.render.gone", "framefleet.pipeline.render.renderer.Renderer"),
        (lost_modules, "`framefleet.gone(...)`", "`framefleet.Renderer(...)`"),
        (lost_imports, "    from framefleet import Gone", "    from framefleet import Renderer"),
        (lost_members, "`Renderer.gone`", "`Renderer.capacity`, `Renderer.rows`, `Base.begin`, `Tensor.x`"),
        (lost_members, "`renderer.GONE`", "`renderer.SIZE`, `renderer.value`"),
        (broken_links, "[x](gone.md)", "[x](../docs/options.md), [y](https://x.org/gone.md)"),
        (broken_links, "[x](../docs/options.md#gone)", "[x](../docs/options.md#step-caches-and-more)"),
        (unknown_commands, "`framefleet gone`", "`framefleet render`, `framefleet model lock|verify`"),
        (unknown_commands, "    framefleet plan \\\n --gone", "    framefleet plan \\\n --table x # --gone"),

        (unknown_targets, "`make gone`", "`make check`; make haste"),
        (unknown_modules, "python -m tests.gone", "python -m tools.fuzz --seed 7"),
        (unread_variables, "set FRAMEFLEET_GONE", "set FRAMEFLEET_CACHE"),
        (unknown_keys, "`media.gone`", "`media.crf`, `train.steps`, `model.ckpt`"),
        (unknown_keys, "--set fleet.gone=2", "--set fleet.workers=2 --set defaults.gone=1"),
    ],
)  # fmt: skip
def test_what_texts_name_is_found_only_where_it_is_gone(check: Check, gone: str, there: str) -> None:
    assert len(problems(check, gone)) == 1
    assert not problems(check, there)


def test_of_python_comments_and_docstrings_are_read_and_the_code_is_not() -> None:
    lines = ['"""See gone_1.py."""', 'PATH = "gone_2.py"  # and gone_3.py', "def f():", '    "Or gone_4.py."']
    found = problems(lost_paths, "\n".join(lines), "pipeline/code.py")
    assert found == [f"gone_{number}.py does not exist" for number in (1, 3, 4)]
    house = House({**TEXTS, "docs/x.md": "a\nb\nsee gone.py\n"})
    assert [str(finding) for finding in lost_paths(house)] == ["docs/x.md:3: gone.py does not exist"]
    headings = "# Why `x_y`, and not z?\n## A\n## A\n```\n# no\n```\n"
    assert anchors(headings) == {"why-x_y-and-not-z", "a", "a-1"}, "as GitHub has them"


@pytest.mark.parametrize(
    ("check", "message"),
    [
        (lost_documents, "see docs/gone.md"),
        (unknown_commands, "use `framefleet gone`"),
        (unknown_keys, "set `media.gone`"),
    ],
)
def test_messages_send_nobody_to_what_is_gone(check: Check, message: str) -> None:
    assert problems(check, f"raise JobError('{message}')", "pipeline/code.py")
    assert not problems(check, f"assert '{message}' in text", "tests/unit/test_x.py")
    text = 'def f():\n    """Say that\n\n    framefleet renders it, and\n    make haste.\n    """\n'
    assert not problems(check, text, "pipeline/code.py"), "an indented sentence is no command"


def test_a_public_name_of_two_files_is_found_and_a_private_one_is_not() -> None:
    text = "class Same: ...\ndef _private(): ...\nlog = 1\nBOTH, _HIDDEN = 1, 2\n"
    house = House({**TEXTS, "jobs/a.py": text, "jobs/b.py": text})
    found = [finding for finding in doubled_names(house) if finding.path.startswith("jobs/")]
    assert [str(finding) for finding in found] == [
        "jobs/a.py:1: Same is defined in jobs/b.py too: one name for one thing",
        "jobs/a.py:4: BOTH is defined in jobs/b.py too: one name for one thing",
    ]


def test_a_cycle_of_files_is_found_and_one_for_type_checkers_is_not() -> None:
    first = "def f():\n    from framefleet.jobs.b import C\n"  # late imports count
    second = "from framefleet.jobs import a\n"
    found = [str(finding) for finding in import_cycles(House({"jobs/a.py": first, "jobs/b.py": second}))]
    assert len(found) == 1 and "a cycle of imports: " in found[0]
    typed = "if TYPE_CHECKING:\n    from framefleet.jobs.b import C\n"
    assert not [*import_cycles(House({"jobs/a.py": typed, "jobs/b.py": second}))]


def test_circles_of_many_files_are_refused_with_imports_for_types() -> None:
    def circle(num_files: int) -> House:
        names = [f"jobs/f{index}.py" for index in range(num_files)]
        text = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from framefleet.jobs import f{}\n"
        return House({name: text.format((index + 1) % num_files) for index, name in enumerate(names)})

    assert not [*wide_circles(circle(MAX_FILES))]
    (finding,) = wide_circles(circle(MAX_FILES + 1))
    assert "6 files import each other: jobs/f0.py, jobs/f1.py" in str(finding)
    code = (
        "from framefleet.pipeline.rows import x\nif TYPE_CHECKING:\n    import framefleet.pipeline.errors\n"
    )
    house = House({**TEXTS, "pipeline/render/clips.py": code, "pipeline/errors.py": ""})
    assert arrows_between_siblings(house, "pipeline") == {"render": {"rows"}}
    assert "pipeline/: 1 arrows between 3 siblings" in list(figures(house))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "missing"),
        ("Which rows are rendered.", "begins with 'Which'"),
        ("Render rows, and say so.", None),
        ("Number of rows to render.", None),
    ],
)
def test_a_help_text_is_a_phrase(text: str, problem: str | None) -> None:
    found = help_problem(text)
    assert found == problem or (problem and found and found.startswith(problem))


def test_help_of_nested_commands_their_arguments_and_options_is_read() -> None:
    inner = click.Command(
        "lock", help="Lock it.", params=[click.Option(["--again"]), click.Argument(["place"])]
    )
    found = dict(help_texts(click.Group("model", help="Models.", commands=[inner]), "framefleet model"))
    assert found["framefleet model lock"] == "Lock it."
    assert found["framefleet model lock --again"] == found["framefleet model lock place"] == ""
    assert not [*poor_help(House({}))]


def test_a_checkout_is_read_with_what_is_new_and_without_what_is_ignored(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    for name, content in {".gitignore": b"build/", "a.md": b"text", "b.bin": b"\0"}.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "build").mkdir()
    (tmp_path / "build" / "c.md").write_text("made")
    assert read_house(tmp_path).texts == {".gitignore": "build/", "a.md": "text", "b.bin": ""}


def test_a_test_is_at_the_doors_when_nothing_it_uses_in_its_file_names_an_address() -> None:
    lines = [
        "from framefleet import Store, gallery",
        "from framefleet.pipeline.errors import JobError",
        "from framefleet.pipeline.model.load import load",
        "def _shown(store: Store) -> None: gallery(store.url_of(''))",
        "def _loaded() -> None: load()",
        "def test_page(tmp_path): _shown(Store(tmp_path))",
        "def test_weights(): _loaded()",
    ]
    assert dict(doors_in(ast.parse("\n".join(lines)))) == {"test_page": True, "test_weights": False}
    tools = ast.parse("\n".join(["from tools.house.house import House", "def test_house(): House({})"]))
    assert dict(doors_in(tools)) == {"test_house": False}


ROOT = Path(__file__).parents[2]


def test_importing_framefleet_loads_neither_torch_nor_ray_nor_diffusers() -> None:
    script = "import sys, framefleet; print({'torch', 'ray', 'diffusers', 'transformers'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


def test_public_names_are_sorted_and_listed_by_dir_and_others_are_none() -> None:
    assert framefleet.__all__ == sorted(framefleet.__all__)
    assert set(framefleet.__all__) <= set(dir(framefleet))
    with pytest.raises(AttributeError, match="no attribute 'rendr'"):
        framefleet.rendr  # noqa: B018  # reading it is the test


@pytest.mark.parametrize("name", framefleet.__all__)
def test_a_public_name_resolves_to_something_of_that_name(name: str) -> None:
    assert getattr(framefleet, name).__name__ == name


AREAS = sorted(area.stem for area in (ROOT / "framefleet" / "api").glob("[a-z]*.py"))


@pytest.mark.parametrize("area", AREAS)
def test_every_name_of_the_api_is_there(area: str) -> None:
    module = import_module(f"framefleet.api.{area}")
    names: dict[str, object] = {}
    exec(f"from {module.__name__} import *", names)
    assert homes(module.__name__).keys() == names.keys() - {"__builtins__"} <= {*dir(module)}
    with pytest.raises(ImportError, match="cannot import name 'rendr'"):
        exec(f"from {module.__name__} import rendr")


@pytest.mark.parametrize("folder", ["pipeline", "cluster", "jobs", "plugins"])
def test_a_folder_is_linked_relatively_so_that_a_clone_can_lie_anywhere(folder: str) -> None:
    assert (ROOT / "framefleet" / folder).readlink() == Path("..", folder)


def test_the_version_has_one_source() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert "version" in project["dynamic"]
    assert [int(part) for part in framefleet.__version__.split(".")] >= [0, 1, 0]


def test_constraints_name_exact_versions_from_no_particular_place() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert all(pin.count("==") == 1 and not set(pin) & set("+/@ ") for pin in pins)
