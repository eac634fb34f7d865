"""The package as installed: cheap to import, complete in what it names, in one copy."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

import framefleet
from framefleet.lazy_names import homes

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
    assert [name for name in homes(module.__name__) if not hasattr(module, name)] == []
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
