"""What stands ready for those who work on framefleet: workflow, forms, READMEs, pages, shown promises."""

from __future__ import annotations

import ast
import importlib
import re
import tomllib
from pathlib import Path
from typing import Any, cast

import pytest
import yaml

import framefleet
from framefleet.jobs.job.schema import job_schema
from framefleet.pipeline import errors
from tests.changed import EVERYWHERE, nearest_tests
from tests.commands import command
from tools.benchmarks.fire_reader import Counts, counts
from tools.benchmarks.written import TABLES, Command, write_docs
from tools.house.commands import targets
from tools.house.house import PACKAGES, House
from tools.house.measurements import BLOCK, stray_measurements
from tools.models_page import page as models_page
from tools.mutants import choose, mutants_of
from tools.reference import PAGES, commands_page, example_of, job_keys, python_page, stale_pages
from tools.words import words_by_page

ROOT = Path(__file__).parents[2]
GITHUB = ROOT / ".github"


def read(path: Path) -> Any:
    # "on" is a text in a workflow, and a yes in YAML 1.1.
    return yaml.load(path.read_text(), Loader=yaml.BaseLoader)


def test_the_workflow_makes_what_the_makefile_has_and_may_only_read() -> None:
    workflow = read(GITHUB / "workflows" / "check.yml")
    steps = workflow["jobs"]["check"]["steps"]
    made = {
        word for step in steps for word in step.get("run", "").split() if word != "make" and "=" not in word
    }
    assert {"check", "test"} <= made <= targets((ROOT / "Makefile").read_text())
    assert workflow["permissions"] == {"contents": "read"}
    assert "push" in workflow["on"] and "pull_request" in workflow["on"]
    classifiers = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["classifiers"]
    promised = [match[1] for line in classifiers if (match := re.search(r"Python :: (3\.\d+)$", line))]
    assert workflow["jobs"]["check"]["strategy"]["matrix"]["python"] == promised


@pytest.mark.parametrize("name", PACKAGES)
def test_a_package_has_no_second_copy_under_its_short_name(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(ROOT)
    with pytest.raises(ImportError, match=f"import it as framefleet.{name}"):
        importlib.import_module(f"{name}.errors")


@pytest.mark.parametrize(
    ("text", "mutated"),
    [
        ("x = a < b", {"x = a <= b"}),
        ("x = (a) is not (b)", {"x = (a) is (b)"}),
        ("x = a < b == c", {"x = a <= b == c", "x = a < b != c"}),
        ("x += y // z", {"x -= y // z", "x += y * z"}),
        ("x = not a", {"x = a"}),
        ("if a and b: pass", {"if not (a and b): pass"}),
        ("x = f(True, 1.5)", {"x = f(False, 1.5)", "x = f(True, 2.5)"}),
        ("f(a)", {"pass"}),
        ("f(\n    a,\n)", {"0 and f("}),
        ("self.log.warning(a)", set()),
        ('"""A text."""', set()),
        ("x: Literal[1] = f'{a + 1}'", set()),
        ("@dataclass(frozen=True)\nclass A: pass", set()),
    ],
)
def test_a_line_is_mutated_in_one_place(text: str, mutated: set[str]) -> None:
    assert {mutant.after for mutant in mutants_of("a.py", text)} == mutated


def test_one_line_of_a_file_changes() -> None:
    text = "a = 1\nb = a < 2\n"
    assert [mutant.apply(text) for mutant in mutants_of("a.py", text) if mutant.kind == "comparison"] == [
        "a = 1\nb = a <= 2\n"
    ]


def test_a_seed_chooses_mutants_once_each() -> None:
    texts = {"a.py": "x = 1\ny = 2\n", "b.py": "z = 3 < 4\n"}
    chosen = choose(texts, seed=7, count=100)
    assert chosen == choose(texts, seed=7, count=100)
    assert len(set(chosen)) == len(chosen) == 5


def test_equal_bytecode_is_not_chosen() -> None:
    assert list(mutants_of("a.py", "0\n"))
    assert choose({"a.py": "0\n"}, seed=7, count=9) == []


def test_rows_are_counted_once_twice_never_and_with_wrong_bytes() -> None:
    undisturbed = {"a": ["1"], "b": ["2"], "c": ["3"], "d": ["4"], "e": ["5"]}
    clips = {"a": ["1"], "b": ["2", "2"], "d": ["x"], "e": ["5", ""]}
    assert counts([*undisturbed], clips, undisturbed) == Counts(once=2, twice=2, never=1, wrong=2)
    assert counts([*undisturbed], undisturbed, undisturbed) == Counts(once=5, twice=0, never=0, wrong=0)


def test_the_test_of_a_file_is_the_nearest() -> None:
    near = nearest_tests(["cluster/dispatch/order.py"])
    assert {"tests/unit/test_row_queue.py", "tests/property/test_dispatcher.py"} <= set(list(near)[:9])
    assert list(near.values()) == sorted(near.values())
    assert near["tests/unit/test_row_queue.py"] == 1


@pytest.mark.parametrize(
    ("path", "test", "distance"),
    [
        ("plugins/ports/crafter/unet.py", "tests/periphery/models/test_crafter.py", 3),
        ("tests/crafter.py", "tests/periphery/models/test_crafter.py", 0),
        ("tests/unit/test_row_queue.py", "tests/unit/test_row_queue.py", 0),
        ("cluster/dispatch/__init__.py", "tests/unit/test_doors.py", 1),
        ("plugins/pages/gallery/page/clip.js", "tests/browser/test_gallery_page.py", 1),
        ("plugins/words/command.py", "tests/cluster/test_judge.py", 1),
        ("examples/tutorial.yaml", "tests/cluster/test_tutorial.py", 1),
        ("constraints.txt", "tests/cluster/test_kills.py", EVERYWHERE),
        (f"{'un'}known.bin", "tests/cluster/test_kills.py", EVERYWHERE),
        ("docs/tables.md", "tests/cluster/test_kills.py", None),
        ("jobs/cli.py", "tests/unit/test_text.py", 1),  # it reads all modules
    ],
)
def test_a_test_is_as_near_as_what_it_and_its_helpers_import_or_name(
    path: str, test: str, distance: int | None
) -> None:
    assert nearest_tests([path]).get(test) == distance


def test_all_tests_are_concerned_where_nothing_says_what_changed() -> None:
    assert set(nearest_tests(None).values()) == {EVERYWHERE}
    assert nearest_tests([]) == {}


EMPTY = "# A page\n\nBefore.\n\n<!-- measured: {name} -->\n<!-- end -->\n\nAfter.\n"


class Printed(Command):
    rate = ""

    def __call__(self, is_short: bool) -> str:
        return f"| {Printed.rate} |\n|---|\n"


def test_a_table_is_written_into_its_block_alone_with_command_commit_and_processor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "docs").mkdir()
    page, other = tmp_path / "docs/a.md", tmp_path / "docs/b.md"
    page.write_text(EMPTY.format(name="load"))
    other.write_text(EMPTY.format(name="start"))
    monkeypatch.setitem(cast(dict[str, object], TABLES), "load", Printed("load"))
    for rate in ("4.9 rows/s", "5.1 rows/s"):  # the second time over what the first one wrote
        Printed.rate = rate
        write_docs(["load"], root=tmp_path)
        before, found, after = BLOCK.sub("<!-- X -->", text := page.read_text()).partition("<!-- X -->")
        assert (before, found, after) == ("# A page\n\nBefore.\n\n", "<!-- X -->", "\n\nAfter.\n")
        assert f"| {rate} |" in text and text.count("rows/s") == 1
        assert "`python -m tools.benchmarks.load` at commit " in text and " cores of " in text
        assert not list(stray_measurements(House({"docs/a.md": text})))
        assert list(stray_measurements(House({"docs/a.md": text.replace(rate, "9.9 rows/s")})))
    assert other.read_text() == EMPTY.format(name="start")
    with pytest.raises(SystemExit, match="no table is called lode; use mixed,"):
        write_docs(["lode"])


def test_every_block_of_the_documents_has_a_table_and_every_table_a_block() -> None:
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]
    found = {(match["name"], match[0]) for page in pages for match in BLOCK.finditer(page.read_text("utf-8"))}
    assert sorted(name for name, _ in found) == sorted(TABLES), "a table in two pages is the same in both"


EXAMPLES = yaml.safe_load((ROOT / "tools/reference_examples.yaml").read_text("utf-8"))


@pytest.mark.parametrize("section", [None, "train"])
def test_every_key_has_a_meaning_and_an_example(section: str | None) -> None:
    keys = list(job_keys(job_schema(section)))
    assert len(keys) > 50
    assert [key.path for key in keys if not key.schema.get("description")] == []
    for key in keys:
        example_of(key, EXAMPLES)  # raises without one


def test_a_page_is_refused_once_a_key_or_an_option_changes() -> None:
    texts = {path: page() for path, page in PAGES.items()}
    assert list(stale_pages(House(texts))) == []
    changed = texts | {"docs/reference/commands.md": commands_page().replace("--limit", "--first")}
    assert [finding.path for finding in stale_pages(House(changed))] == ["docs/reference/commands.md"]


def test_the_skill_has_what_agents_read_first_and_is_printed() -> None:
    text = (ROOT / "plugins/skill/SKILL.md").read_text("utf-8")
    _, front, body = text.split("---\n", 2)
    assert yaml.safe_load(front)["name"] == "framefleet"
    assert len(yaml.safe_load(front)["description"]) < 1024 and len(body.split()) < 1200
    assert command("skill").stdout == text


def test_every_error_is_imported_from_framefleet_and_has_a_meaning_of_its_own() -> None:
    kinds = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, Exception)]
    table = python_page().partition("## Errors")[2]
    rows = re.findall(r"^\| `(\w+)` \| `\w+` \| (.+) \|$", table, re.MULTILINE)
    assert {name for name, _ in rows} == {kind.__name__ for kind in kinds}
    assert all(getattr(framefleet, kind.__name__) is kind for kind in kinds)
    assert len({meaning for _, meaning in rows}) == len(rows)


def test_the_python_page_explains_all_members_and_sends_nobody_to_sources() -> None:
    page = python_page()
    assert re.findall(r"^- `.*`: *$", page, re.MULTILINE) == []
    explained = set(re.findall(r"^(?:### (?:framefleet\.)?|\| `)(\w+)", page, re.MULTILINE))
    quoted = re.findall(r"`([\w.]*[A-Z][a-z]\w+|[\w/]+\.py)`", page.partition("## Errors")[0])
    quoted += re.findall(r"see `?([A-Z]\w+)", page)
    assert {name for name in quoted if name not in explained} == set()


def test_the_first_pages_stay_short() -> None:
    words = words_by_page()
    assert words["README.md"] <= 1200
    assert words["docs/models.md"] <= 1500


def test_the_page_of_models_is_the_one_that_the_presets_make() -> None:
    text = (ROOT / "docs/reference/models.md").read_text(encoding="utf-8")
    assert text == models_page(), "python -m tools.models_page > docs/reference/models.md"


def promises() -> list[str]:
    text = (
        (ROOT / "README.md").read_text(encoding="utf-8").split("## What it promises")[1].split("\n\nHow ")[0]
    )
    text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", text).replace("**", "")
    items = [" ".join(item.split()) for item in re.split(r"^\d\. ", text, flags=re.MULTILINE)[1:]]
    sentences = [sentence for item in items for sentence in re.split(r"(?<=\.) (?=[A-Z])", item)]
    table = (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8").split("## Exit codes")[1]
    codes = ", ".join(re.findall(r"^\| (\d[\d, ]*) \|", table, re.MULTILINE)).split(", ")
    return [*sentences, *(f"exit code {code}" for code in codes)]


def shown() -> set[str]:
    """Return what the markers of all cases name."""
    names = set()
    for file in (ROOT / "tests").rglob("test_*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.promise":
                names |= {str(ast.literal_eval(argument)) for argument in node.args}
    return names


def test_each_promise_is_shown_and_what_is_shown_is_promised() -> None:
    marked = shown() - {"Its frames equal"}  # of tests of the markers themselves
    promised = promises()
    assert len(promised) > 15
    assert [sentence for sentence in promised if not sentence.startswith(tuple(marked))] == []
    assert [name for name in marked if not any(sentence.startswith(name) for sentence in promised)] == []
