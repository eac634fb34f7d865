"""What stands ready for those who work on framefleet: the workflow, the forms, a README in every folder."""

from __future__ import annotations

import importlib
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from tools.house.commands import targets
from tools.house.house import PACKAGES

ROOT = Path(__file__).parents[2]
GITHUB = ROOT / ".github"
FORMS = sorted(path for path in (GITHUB / "ISSUE_TEMPLATE").glob("*.yml") if path.stem != "config")


def read(path: Path) -> Any:
    # "on" is a text in a workflow, and a yes in YAML 1.1.
    return yaml.load(path.read_text(), Loader=yaml.BaseLoader)


def folders() -> list[Path]:
    """Return the folders of the first two levels; the README of tests tells of all of its own."""
    tops = [ROOT / name for name in (*PACKAGES, "tests", "tools", "docs")]
    inner = [path.parent for name in PACKAGES for path in (ROOT / name).glob("*/__init__.py")]
    return [*tops, *inner]


def test_the_workflow_makes_what_the_makefile_has_and_may_only_read() -> None:
    workflow = read(GITHUB / "workflows" / "check.yml")
    steps = workflow["jobs"]["check"]["steps"]
    made = {
        word for step in steps for word in step.get("run", "").split() if word != "make" and "=" not in word
    }
    assert {"check", "test"} <= made <= targets((ROOT / "Makefile").read_text())
    assert workflow["permissions"] == {"contents": "read"}
    assert "push" in workflow["on"] and "pull_request" in workflow["on"]


def test_the_workflow_runs_on_every_python_that_is_promised() -> None:
    classifiers = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["classifiers"]
    promised = [match[1] for line in classifiers if (match := re.search(r"Python :: (3\.\d+)$", line))]
    assert (
        read(GITHUB / "workflows" / "check.yml")["jobs"]["check"]["strategy"]["matrix"]["python"] == promised
    )


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.stem)
def test_an_issue_form_is_one_that_github_shows(form: Path) -> None:
    content = read(form)
    assert {"name", "description", "body"} <= set(content)
    fields = [field for field in content["body"] if field["type"] != "markdown"]
    assert {field["type"] for field in fields} <= {"input", "textarea"}
    assert all(field["attributes"]["label"] for field in fields)
    assert len({field["id"] for field in fields}) == len(fields)


def test_a_report_is_asked_for_what_it_takes_to_repeat_it() -> None:
    body = read(GITHUB / "ISSUE_TEMPLATE" / "bug.yml")["body"]
    required = {field["id"] for field in body if field.get("validations", {}).get("required") == "true"}
    assert {"version", "command", "error"} <= required
    assert "secrets" in body[0]["attributes"]["value"]


@pytest.mark.parametrize("folder", folders(), ids=lambda folder: str(folder.relative_to(ROOT)))
def test_a_folder_has_a_readme_that_draws_its_flow(folder: Path) -> None:
    text = (folder / "README.md").read_text()
    assert text.startswith("# ") and "->" in text and "first" in text.lower()


@pytest.mark.parametrize("name", PACKAGES)
def test_a_package_has_no_second_copy_under_its_short_name(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(ROOT)
    with pytest.raises(ImportError, match=f"import it as framefleet.{name}"):
        importlib.import_module(f"{name}.errors")
