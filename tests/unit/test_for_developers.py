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
