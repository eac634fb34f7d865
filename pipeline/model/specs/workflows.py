"""From the blocks of a modular pipeline, and the components of a model, to whether it can run.

diffusers chooses blocks by the inputs of a call. What they take of components may be null in a model's index:
some ask whether it is there, the others fail at each row.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from framefleet.pipeline.model.specs.constructor import module_source


def lacking_components(blocks: Any, components: Collection[str]) -> list[str]:
    """Return what a model lacks that each of its workflows needs, of the nearest one; none if one can run.

    components: those that the model has.
    """
    named = getattr(blocks, "_workflow_map", None) or {"": {}}  # `available_workflows`, with their inputs
    ways = [spelled[0] if isinstance(spelled, tuple) else spelled for spelled in named.values()]
    chosen = [blocks.get_execution_blocks(**way) for way in ways]
    return min((sorted(needed_components(one).difference(components)) for one in chosen), key=len)


def needed_components(blocks: Any) -> set[str]:
    """Return the components that are loaded from a model and that some block uses without asking for them."""
    return {
        spec.name
        for block in _leaves(blocks)
        for spec in block.expected_components
        if spec.default_creation_method == "from_pretrained" and not _asks_for(type(block), spec.name)
    }


def _leaves(block: Any) -> Iterator[Any]:
    if not block.sub_blocks:
        yield block
    for inner in block.sub_blocks.values():
        yield from _leaves(inner)


def _asks_for(block: type, component: str) -> bool:
    """Tell whether a block, or a function that it hands a component to, looks whether that is there."""
    module, here = module_source(block), rf"components\.{component} is|components, '{component}', None\) is"
    functions = {node.name: node for node in module.body if isinstance(node, ast.FunctionDef)}
    own = [node for node in module.body if isinstance(node, ast.ClassDef) and node.name == block.__name__]
    handed = (found for node in (*own, *functions.values()) for found in _handed(node, component, functions))
    places = [
        *((node, here) for node in own),
        *((functions[name], rf"(?<![.\w]){given} is") for name, given in handed),
    ]
    return any(_is_tested(node, written) for node, written in places)


def _is_tested(function: ast.AST, written: str) -> bool:
    """Tell whether a condition compares what is written so with None."""
    conditions = (node.test for node in ast.walk(function) if isinstance(node, ast.If | ast.IfExp))
    return any(re.search(rf"(?:{written}) (not )?None", ast.unparse(condition)) for condition in conditions)


def _handed(
    function: ast.AST, component: str, functions: Mapping[str, ast.FunctionDef]
) -> Iterator[tuple[str, str]]:
    """Yield each function that is called with the component, and what that calls it."""
    for call in ast.walk(function):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in functions:
            names = [argument.arg for argument in functions[call.func.id].args.args]
            given = [*zip(names, call.args, strict=False), *((k.arg or "", k.value) for k in call.keywords)]
            for name, value in given:
                if ast.unparse(value) == f"components.{component}":
                    yield call.func.id, name
