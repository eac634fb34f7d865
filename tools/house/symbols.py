"""What a file or a class of the house defines, read from syntax trees: nothing is imported."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator

from tools.house.house import House


def has_name(house: House, path: str, name: str) -> bool:
    """Say whether a file has a function, a class, a value, or `Class.attribute` of that name."""
    path = path if path in house.trees else path.removeprefix("framefleet/")
    if path not in house.trees:
        return True  # of tests and documents nothing is known
    first, _, attribute = name.partition(".")
    body, owner = house.trees[path].body, house.classes.get(first)
    if first not in {*defined(body), *_imported(body)}:
        return False
    return owner is None or not attribute or has_attribute(house, owner, attribute)


def has_attribute(house: House, node: ast.ClassDef, attribute: str) -> bool:
    """Say whether a class or one of its bases has it; of bases that are not ours everything is believed."""
    if attribute in {*defined(node.body), *_set_on_self(node)}:
        return True
    for base in node.bases:
        name = ast.unparse(base).partition("[")[0]
        ours = house.classes.get(name)
        if has_attribute(house, ours, attribute) if ours else name != "Protocol":
            return True
    return False


def defined(body: Iterable[ast.stmt]) -> Iterator[str]:
    """Yield the names that statements define: functions, classes, values."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign):
            targets = [name for target in node.targets for name in getattr(target, "elts", [target])]
            yield from (name.id for name in targets if isinstance(name, ast.Name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id


def _imported(body: Iterable[ast.stmt]) -> Iterator[str]:
    for node in body:
        if isinstance(node, ast.If):  # for type checkers alone
            yield from _imported(node.body)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield from (name.asname or name.name for name in node.names)


def _set_on_self(node: ast.ClassDef) -> Iterator[str]:
    for inner in ast.walk(node):
        if isinstance(inner, ast.Attribute) and isinstance(inner.ctx, ast.Store):
            yield inner.attr
