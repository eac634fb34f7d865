"""Which tests go through the command line or the public face, so that moving a file breaks none of them.

Such a test names no address inside the packages, and neither does what it calls in its own file. The tree
of errors and framefleet.api, which plugins import, count as public. Helpers of tests may name addresses: of a
file that moves, one line changes. Tests of our own tools do not count.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from tools.house.house import House

_PUBLIC = ("framefleet.pipeline.errors", "framefleet.api")
_OF_TOOLS = ("tools", "tests.standin", "tests.changed")


def tests_at_doors(house: House) -> Iterator[str]:
    """Yield one line: the share of such tests."""
    num_tests = num_at_doors = 0
    for path, text in house.texts.items():
        if re.fullmatch(r"tests/.*/test_\w+\.py", path):
            flags = [is_at_door for _, is_at_door in doors_in(ast.parse(text))]
            num_tests, num_at_doors = num_tests + len(flags), num_at_doors + sum(flags)
    share = num_at_doors / max(1, num_tests)
    yield f"tests through the command line or the public face: {share:.0%} of {num_tests:,}"


def doors_in(tree: ast.Module) -> Iterator[tuple[str, bool]]:
    """Yield each test of a file, and whether it goes through the command line or the public face alone."""
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    modules = {node.module or "" for node in imports}
    modules |= {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    inside = {
        name.asname or name.name
        for node in imports
        if (node.module or "").startswith("framefleet.") and not (node.module or "").startswith(_PUBLIC)
        for name in node.names
    }
    is_of_tools = any(module.startswith(_OF_TOOLS) for module in modules)
    names = {node: _names(node) for node in tree.body}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            used, size = _names(node), 0
            while len(used) > size:
                size = len(used)
                used |= {name for one in tree.body if _made_by(one) & used for name in names[one]}
            yield node.name, not (is_of_tools or used & inside)


def _names(node: ast.AST) -> set[str]:
    """Return the names that a statement uses; parameters are the names of fixtures."""
    nodes = list(ast.walk(node))
    names = {one.id for one in nodes if isinstance(one, ast.Name)}
    return names | {one.arg for one in nodes if isinstance(one, ast.arg)}


def _made_by(node: ast.stmt) -> set[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return {node.name}
    if isinstance(node, ast.Assign | ast.AnnAssign):
        return {
            one.id for one in ast.walk(node) if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store)
        }
    return set()
