"""What is called for its exception alone says so in its name."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# They change something, and also say how much: who calls them need not know.
DOING = ("count", "draw", "finish", "make", "mark", "open", "render", "survey", "sweep", "take", "write")


@cache
def returning(file: Path) -> frozenset[str]:
    """The functions of a file that return something."""
    functions = [node for node in ast.parse(file.read_text()).body if isinstance(node, ast.FunctionDef)]
    return frozenset(
        one.name for one in functions if one.returns and ast.unparse(one.returns) not in ("None", "NoReturn")
    )


def dropped(file: Path) -> Iterator[str]:
    """Calls whose result is dropped, of functions of the file itself and of what it imports from us."""
    tree, known = ast.parse(file.read_text()), set(returning(file))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("framefleet."):
            source = ROOT.joinpath(*node.module.split(".")[1:]).with_suffix(".py")
            if source.is_file():
                known |= {name.name for name in node.names} & returning(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            function = node.value.func
            if isinstance(function, ast.Name) and function.id in known:
                yield f"{file.relative_to(ROOT)}:{node.lineno} {function.id}"


@pytest.mark.parametrize("folder", ["jobs", "cluster"])
def test_a_function_that_is_called_for_its_exception_is_named_check(folder: str) -> None:
    # `framefleet doctor` tries what others do, to see whether it fails.
    files = sorted(file for file in (ROOT / folder).rglob("*.py") if "doctor" not in file.parts)
    assert files
    found = [call for file in files for call in dropped(file)]
    assert [call for call in found if not call.split()[-1].lstrip("_").startswith(("check", *DOING))] == []
