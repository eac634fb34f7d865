"""From the blocks of a modular pipeline, and the components of a model, to the workflows that it can run.

diffusers chooses blocks by the inputs of a call. What they take of components may be null in a model's index:
some ask whether it is there, the others fail at each row.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from framefleet.pipeline.model.specs.constructor import module_source


@dataclass(frozen=True, slots=True, kw_only=True)
class Workflow:
    """One way to call a pipeline.

    name: diffusers' own; "" of a pipeline that has one workflow only. inputs: any of these sets chooses it.
    missing: components that it needs, and that the model does not have.
    """

    name: str
    inputs: tuple[frozenset[str], ...]
    missing: tuple[str, ...]


def workflows_of(blocks: Any, components: Collection[str]) -> tuple[Workflow, ...]:
    """Return the workflows of blocks. components: those that the model has."""
    named = getattr(blocks, "_workflow_map", None) or {
        "": {}
    }  # what `available_workflows` lists, with inputs
    found = []
    for name, spelled in named.items():
        ways = spelled if isinstance(spelled, tuple) else (spelled,)
        needed = _needed(blocks.get_execution_blocks(**ways[0]))
        missing = tuple(sorted(needed.difference(components)))
        found.append(Workflow(name=name, inputs=tuple(map(frozenset, ways)), missing=missing))
    return tuple(found)


def workflow_for(workflows: Collection[Workflow], arguments: Mapping[str, Any]) -> Workflow | None:
    """Return the workflow that a call runs: that of the most inputs which it gives."""
    given = {name for name, value in arguments.items() if value is not None}
    fitting = [(len(way), one) for one in workflows for way in one.inputs if way <= given]
    return max(fitting, key=lambda found: found[0], default=(0, None))[1]


def _needed(blocks: Any) -> set[str]:
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
