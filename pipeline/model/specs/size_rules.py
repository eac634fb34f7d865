"""From the source of a pipeline to the multiples that its sizes and lengths must be of.

Each pipeline says so in its own way: `if height % 16 != 0: raise`, `latent_height = height //
self.vae_scale_factor`, `2 * (int(height) // (self.vae_scale_factor * 2))`. What is not divided exactly is
refused when it is called, rounded without a word, or fails in its networks. Each divisor is evaluated with
the model's own config.
"""

from __future__ import annotations

import ast
import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from framefleet.pipeline.model.specs.constructor import Scope, Unknown, evaluated, method, steps

_SIDES, _FRAMES, _TEXT = ("height", "width"), ("num_frames", "video_length"), "max_sequence_length"
_METHODS = ("check_inputs", "__call__", "prepare_latents")
_MOST = 1 << 14  # pixels of a side


@dataclass(frozen=True, slots=True, kw_only=True)
class SizeRules:
    """What a pipeline's source says.

    sides, frames: what height and width are multiples of, and numbers of frames (without the first, where it
    counts alone); 1 where it says nothing. max_text: the largest `max_sequence_length`.
    """

    sides: int = 1
    frames: int = 1
    max_text: int | None = None


def size_rules(made: type, pipe: Any) -> SizeRules:
    """Return the rules that the source of a class writes down.

    pipe: a pipeline of it, or what is known of one (`constructed_pipeline`).
    """
    found = [rule for method_name in _METHODS for rule in _rules(made, pipe, method_name)]
    return SizeRules(
        sides=math.lcm(*(number for name, number in found if name in _SIDES)),
        frames=math.lcm(*(number for name, number in found if name in _FRAMES)),
        max_text=min((number for name, number in found if name == _TEXT), default=None),
    )


def _rules(made: type, pipe: Any, method_name: str) -> Iterator[tuple[str, int]]:
    """Yield (argument, number) for each rule in a method."""
    function = method(made, method_name)
    if function is None:
        return
    names = vars(sys.modules[made.__module__])
    scope: Scope = {"self": pipe}
    given = {*_SIDES, *_FRAMES, _TEXT}  # what still is what the row gave
    for step in steps(function.body, scope, names):
        rounded = _right_of(ast.Mult, step)
        for node in ast.walk(step):
            for name, expression in _written(node, rounded):
                number = _number(expression, scope, names) if name in given else None
                if number:
                    yield name, number
        given -= _replaced(step)


def _written(node: ast.AST, rounded: set[str]) -> Iterator[tuple[str, ast.expr]]:
    """Yield the argument and the number of a rule, if the node writes one. rounded: what is multiplied by."""
    match node:
        case ast.Compare(left=ast.Name(id=name), ops=[ast.Gt()], comparators=[most]) if name == _TEXT:
            yield name, most
        case ast.BinOp(op=ast.Mod(), left=left, right=right):
            if name := _argument(left):
                yield name, right
        case ast.BinOp(ast.BinOp(left, ast.FloorDiv(), first), ast.FloorDiv(), second):
            if name := _argument(left):
                yield name, ast.BinOp(first, ast.Mult(), second)
        case ast.BinOp(op=ast.FloorDiv(), left=left, right=right):
            # a plain number divides what is in latents already, unless it is multiplied by again
            counts = not isinstance(right, ast.Constant) or ast.unparse(right) in rounded
            if counts and (name := _argument(left)):
                yield name, right


def _argument(expression: ast.expr) -> str:
    """Return the argument that an expression is, but for a first frame left out."""
    match expression:
        case ast.Name(id=name):
            return name
        case ast.Call(func=ast.Name(id="int"), args=[inner]):
            return _argument(inner)
        case ast.BinOp(op=ast.Sub(), left=ast.Name(id=name), right=ast.Constant(value=1)) if name in _FRAMES:
            return name
    return ""


def _right_of(operator: type[ast.operator], step: ast.AST) -> set[str]:
    """Return what stands to the right of an operator anywhere in a statement."""
    found = (node for node in ast.walk(step) if isinstance(node, ast.BinOp))
    return {ast.unparse(node.right) for node in found if isinstance(node.op, operator)}


def _number(expression: ast.expr, scope: Scope, names: Mapping[str, Any]) -> int | None:
    try:
        value = evaluated(expression, scope, names)
    except Unknown:
        return None
    return int(value) if type(value) in (int, float) and 1 <= value <= _MOST and value == int(value) else None


def _replaced(step: ast.AST) -> set[str]:
    """Return arguments that a statement makes latents of: divided, and not multiplied again by the same."""
    if not isinstance(step, ast.Assign) or len(step.targets) != 1:
        return set()
    divided, again = _right_of(ast.FloorDiv, step), _right_of(ast.Mult, step)
    return {node.id for node in ast.walk(step.targets[0]) if isinstance(node, ast.Name) and divided - again}
