"""Operators of expressions whose operands are anybody's: those that let numbers and lists grow are bounded.

`[0] * n * n`, `2 ** n` and `"%999999999d" % n` are lines of harmless code until a config says what n is.
"""

from __future__ import annotations

import ast
import copy
import operator
from collections.abc import Callable
from typing import Any

OPERATION = "_bounded"  # of what expressions call for each operator
_MAX_POWER, _MAX_PARTS = 64, 1024  # levels of resolution, and blocks of a network, are a tenth of it
_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "Add": operator.add,
    "BitAnd": operator.and_,
    "BitOr": operator.or_,
    "BitXor": operator.xor,
    "Div": operator.truediv,
    "FloorDiv": operator.floordiv,
    "LShift": operator.lshift,
    "Mod": operator.mod,
    "Mult": operator.mul,
    "Pow": operator.pow,
    "RShift": operator.rshift,
    "Sub": operator.sub,
}


def with_bounds(expression: ast.expr) -> ast.expr:
    """Return a copy of an expression whose operators are calls of `bounded`, by `OPERATION`."""
    found: ast.expr = _Calls().visit(copy.deepcopy(expression))
    return found


def bounded(name: str, left: Any, right: Any) -> Any:
    """Return what an operator makes of two values. Raises ValueError where that may be huge."""
    if isinstance(left, str) or isinstance(right, str):
        raise ValueError("texts are not computed with")
    if name in ("Pow", "LShift") and not abs(right) <= _MAX_POWER:
        raise ValueError("too high a power")
    for parts, count in ((left, right), (right, left)):
        if name == "Mult" and isinstance(parts, list | tuple) and not len(parts) * count <= _MAX_PARTS:
            raise ValueError("too long a list")
    return _OPERATORS[name](left, right)


class _Calls(ast.NodeTransformer):
    def visit_BinOp(self, node: ast.BinOp) -> ast.expr:
        self.generic_visit(node)
        name, asked = ast.Constant(type(node.op).__name__), ast.Name(OPERATION, ast.Load())
        return ast.Call(asked, [name, node.left, node.right], [])
