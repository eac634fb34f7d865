"""From a class and its config to the attributes that its constructor sets, by reading its source.

Pipelines and networks compute their factors there, each in its own way: `2 ** (len(self.vae.config
.block_out_channels) - 1) if getattr(self, "vae", None) else 8`. Such expressions are evaluated one by one;
everything else (weights, tokenizers, registrations) is never made.
"""

from __future__ import annotations

import ast
import contextlib
import copy
import functools
import inspect
import operator
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import CodeType, SimpleNamespace
from typing import Any

Names = dict[str, Any]
_MOST, _MAX_TEXT = 1 << 16, 64  # bounds of config values that are used here: configs may be a stranger's
_BUILTINS: dict[str, Callable[..., Any]] = {
    made.__name__: made for made in (len, sum, int, float, max, min, any, all, bool, tuple, list)
}
# `[0] * n * n`, `2 ** n` and `"%999999999d" % n` are harmless lines of code until a config sets a huge n.
_MAX_POWER, _MAX_PARTS = 64, 1024  # ten times the levels of resolution, and the blocks, of networks
_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    **{"Add": operator.add, "Sub": operator.sub, "Mult": operator.mul, "Pow": operator.pow},
    **{"Div": operator.truediv, "FloorDiv": operator.floordiv, "Mod": operator.mod},
    **{"BitAnd": operator.and_, "BitOr": operator.or_, "BitXor": operator.xor},
    **{"LShift": operator.lshift, "RShift": operator.rshift},
}


def _bounded(name: str, left: Any, right: Any) -> Any:
    """Return the result of an operator. Raises ValueError if it may be huge."""
    if isinstance(left, str) or isinstance(right, str):
        raise ValueError("operators are not used on text")
    if name in ("Pow", "LShift") and not abs(right) <= _MAX_POWER:
        raise ValueError("too high a power")
    for parts, count in ((left, right), (right, left)):
        if name == "Mult" and isinstance(parts, list | tuple) and not len(parts) * count <= _MAX_PARTS:
            raise ValueError("too long a list")
    return _OPERATORS[name](left, right)


class _Calls(ast.NodeTransformer):
    """Replaces operators by calls of `_bounded`."""

    def visit_BinOp(self, node: ast.BinOp) -> ast.expr:
        self.generic_visit(node)
        name, function = ast.Constant(type(node.op).__name__), ast.Name(_bounded.__name__, ast.Load())
        return ast.Call(function, [name, node.left, node.right], [])


class Unknown(Exception):
    """An expression needs something that the config does not say."""


class Constructed:
    """An object as far as it follows from its class and config; unknown attributes raise AttributeError.

    arguments: of its constructor; for missing ones, the default counts.
    """

    def __init__(self, made: type, arguments: Mapping[str, Any]) -> None:
        self.made = made
        parameters = inspect.signature(made.__init__).parameters.values()  # type: ignore[misc]
        defaults = {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}
        self._arguments = defaults | dict(arguments)
        self.config = _Values(self._arguments)

    @functools.cached_property
    def attributes(self) -> dict[str, Any]:
        """What the constructor sets. Computed only on request, because most components never need it."""
        values = {name: value for name, value in self._arguments.items() if _is_small(value)}
        vars(self)["attributes"] = values  # the constructor reads attributes that it has set
        with contextlib.suppress(Unknown):
            self._returned("__init__", dict(values))
        return values

    def __getattr__(self, name: str) -> Any:
        if name in self.attributes:
            return self.attributes[name]
        of_class = inspect.getattr_static(self.made, name, None)
        if isinstance(of_class, property):
            return self._returned(name, {})
        if type(of_class) in (int, float, str) and _is_small(of_class):  # a constant
            return of_class
        raise AttributeError(name)

    def _returned(self, name: str, scope: Names) -> Any:
        """Return the result of a method that only computes with attributes. Raises Unknown."""
        function = method(self.made, name)
        owner = next((base for base in self.made.__mro__ if name in vars(base)), self.made)
        names = vars(sys.modules[owner.__module__])
        scope["self"] = self
        for step in steps(function.body if function else [], scope, names):
            if isinstance(step, ast.Return) and step.value:
                return evaluated(step.value, scope, names)
        raise Unknown


class _Values(SimpleNamespace):
    """A config with only its small values."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        super().__init__(**{name: value for name, value in values.items() if _is_small(value)})


def _is_small(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return len(value) <= _MAX_PARTS and all(_is_small(part) for part in value)
    if isinstance(value, int | float):
        return abs(value) <= _MOST
    if isinstance(value, str):
        return len(value) <= _MAX_TEXT
    return value is None or isinstance(value, Constructed)


def method(made: type, name: str) -> ast.FunctionDef | None:
    """Return the source of a method, which may be inherited, or None."""
    for base in made.__mro__:
        if name in vars(base):
            return _methods(base).get(name)
    return None


@functools.cache
def _methods(made: type) -> dict[str, ast.FunctionDef]:
    if made.__module__ == "builtins":  # e.g. object, whose constructor many inherit
        return {}
    nodes = module_source(made).body
    classes = (node for node in nodes if isinstance(node, ast.ClassDef) and node.name == made.__name__)
    return {n.name: n for node in classes for n in node.body if isinstance(n, ast.FunctionDef)}


def module_source(made: type) -> ast.Module:
    file = inspect.getsourcefile(made)
    return _source(file) if file else ast.Module(body=[], type_ignores=[])


@functools.cache
def _source(file: str) -> ast.Module:
    return ast.parse(Path(file).read_text(encoding="utf-8"))


def steps(body: list[ast.stmt], scope: Names, names: Mapping[str, Any]) -> Iterator[ast.AST]:
    """Go through statements in order, note their assignments in `scope`, and yield each before that.

    If a condition is unknown, both branches are followed, and the names that they assign become unknown.
    """
    for statement in body:
        match statement:
            case ast.Assign(targets=[target], value=value):
                yield statement
                _assign(target, value, scope, names)
            case ast.If(test=test, body=then, orelse=otherwise):
                yield test
                try:
                    yield from steps(then if evaluated(test, scope, names) else otherwise, scope, names)
                except Unknown:
                    yield from steps(then, scope, names)
                    yield from steps(otherwise, scope, names)
                    for node in ast.walk(statement):
                        for target in node.targets if isinstance(node, ast.Assign) else ():
                            owner, name = _place(target, scope)
                            owner.pop(name, None)
            case ast.For(target=ast.Name(id=name), iter=ast.Tuple(elts=values), body=then):
                for value in values:
                    _assign(ast.Name(name), value, scope, names)
                    yield from steps(then, scope, names)
            case ast.With(body=then) | ast.For(body=then) | ast.Try(body=then):
                yield from steps(then, scope, names)
            case ast.Expr(value=ast.Call(func=ast.Attribute(attr="register_modules"), keywords=parts)):
                for keyword in parts:
                    _assign(ast.Attribute(ast.Name("self"), keyword.arg or ""), keyword.value, scope, names)
            case _:
                yield statement


def evaluated(expression: ast.expr, scope: Names, names: Mapping[str, Any]) -> Any:
    """Return the value of an expression. Raises Unknown."""
    code = _code(expression)
    if code is None:
        raise Unknown
    try:
        return eval(code, {**names, **_ASKED, **scope})
    except Exception as error:  # values of a config may not fit the computation
        raise Unknown from error


def _is_a(value: Any, classes: Any) -> bool:
    if isinstance(value, _Values):
        raise Unknown
    return issubclass(value.made, classes) if isinstance(value, Constructed) else isinstance(value, classes)


_ROUNDED = dict.fromkeys(("math.ceil", "math.floor", "math.prod"))  # on small numbers
_LOOKS = {"hasattr": hasattr, "getattr": getattr, "isinstance": _is_a}
_ASKED = {**_BUILTINS, "__builtins__": {}, **_LOOKS, _bounded.__name__: _bounded}


@functools.cache
def _code(expression: ast.expr) -> CodeType | None:
    """Return the code of an expression that only reads values and computes; None for others."""
    for node in ast.walk(expression):
        if isinstance(node, ast.Call):
            if ast.unparse(node.func) not in {**_BUILTINS, **_LOOKS, **_ROUNDED}:
                return None
        elif isinstance(node, ast.Lambda | ast.Await | ast.Yield | ast.YieldFrom | ast.NamedExpr):
            return None
    bounded = ast.Expression(_Calls().visit(copy.deepcopy(expression)))
    return compile(ast.fix_missing_locations(bounded), "<source>", "eval")


def _assign(target: ast.expr, value: ast.expr, scope: Names, names: Mapping[str, Any]) -> None:
    owner, name = _place(target, scope)
    try:
        owner[name] = evaluated(value, scope, names)
    except Unknown:
        owner.pop(name, None)


def _place(target: ast.expr, scope: Names) -> tuple[dict[str, Any], str]:
    """Return the dict and name for a target: locals, or attributes of `self`; others are not kept."""
    match target:
        case ast.Name(id=name):
            return scope, name
        case ast.Attribute(value=ast.Name(id="self"), attr=name):
            return getattr(scope["self"], "attributes", {}), name  # a real pipeline is not changed
    return {}, ""
