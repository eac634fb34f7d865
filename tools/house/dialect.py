"""Names and first lines of docstrings that say nothing about a value: participles and turns of phrase."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from tools.house.house import PACKAGES, Finding, House

# `records`, `message`, `sizes_by_shape` say what a value is. Fields may stay: users read some of them.
NAMES = {"asked", "found", "given", "held", "kept", "known", "named", "said", "told"}
_FIRST_LINE = re.compile(r"\b(told|borne|of which|in company|who holds|as of)\b|^Return it\.")


def dialect(house: House) -> Iterator[Finding]:
    """Yield where the packages say such a word."""
    for path, tree in house.trees.items():
        if path.startswith(PACKAGES):
            for line, word in dialect_in(tree):
                yield Finding(
                    path, line, f"says {word!r}: use a noun of the field, such as records or message"
                )


def dialect_in(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield line and word for each local name, function and first line of a docstring that uses one."""
    fields = {
        field.target for node in ast.walk(tree) if isinstance(node, ast.ClassDef) for field in _fields(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node not in fields:
            if node.id.strip("_") in NAMES:
                yield node.lineno, node.id
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            if node.name.strip("_") in NAMES:
                yield node.lineno, node.name
            if phrase := _FIRST_LINE.search((ast.get_docstring(node) or "").partition("\n")[0]):
                yield node.lineno, phrase[0]


def _fields(node: ast.ClassDef) -> Iterator[ast.AnnAssign]:
    yield from (field for field in node.body if isinstance(field, ast.AnnAssign))
