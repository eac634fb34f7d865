"""The house: every file of the repository, by its path, and what a check says about one."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

PACKAGES = ("pipeline", "cluster", "jobs", "plugins")
SNIFFED_BYTES = 8192  # as git does: a file with a zero byte at its beginning is not a text


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """Something to mend: where, and what is wrong with it."""

    path: str
    line: int
    problem: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.problem}"


class House:
    """texts: by path from the root, with slashes; "" for what is not a text."""

    def __init__(self, texts: Mapping[str, str]) -> None:
        self.texts = texts

    @cached_property
    def places(self) -> frozenset[str]:
        """All files and folders; what `framefleet/` links to is there too."""
        files = {*self.texts}
        files |= {f"framefleet/{path}" for path in files if path.startswith(PACKAGES)}
        return frozenset(files | {str(parent) for path in files for parent in PurePosixPath(path).parents})

    @cached_property
    def trees(self) -> Mapping[str, ast.Module]:
        """The syntax trees of what is installed."""
        folders = (*(f"{name}/" for name in PACKAGES), "framefleet/")
        return {
            path: ast.parse(text)
            for path, text in self.texts.items()
            if path.endswith(".py") and path.startswith(folders)
        }

    @cached_property
    def classes(self) -> Mapping[str, ast.ClassDef]:
        """The classes of what is installed, by name."""
        nodes = (node for tree in self.trees.values() for node in tree.body)
        return {node.name: node for node in nodes if isinstance(node, ast.ClassDef)}


def read_house(root: Path) -> House:
    """Return the house in a git checkout: what is tracked, and what is new and not ignored."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout
    paths = sorted({path for path in listed.split("\0") if path})
    return House({path: _text(root / path) for path in paths if (root / path).is_file()})


def _text(file: Path) -> str:
    with file.open("rb") as opened:
        head = opened.read(SNIFFED_BYTES)
        return "" if b"\0" in head else (head + opened.read()).decode(errors="replace")
