"""What the call of a pipeline class takes, checks and returns over components of some configs.

Asked of the class and its source, and kept: importing a pipeline of diffusers takes eight seconds of a core.
Only refusals, and what renders, come to the class itself again.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from framefleet.pipeline.errors import ModelError
from framefleet.pipeline.guards.mistakes import nearest
from framefleet.pipeline.model.class_cache import kept
from framefleet.pipeline.model.registry import (
    PIPELINES,
    exported,
    is_standin,
    modular_pipeline,
    own_class,
    own_component,
)
from framefleet.pipeline.model.specs.constructor import module_source
from framefleet.pipeline.model.specs.list_arguments import with_several
from framefleet.pipeline.model.specs.model_index import is_modular
from framefleet.pipeline.model.specs.native_facts import (
    NativeFacts,
    autoencoder_factors,
    constructed_pipeline,
    native_facts,
)
from framefleet.pipeline.model.specs.signature import Parameter, parameters_of
from framefleet.pipeline.model.specs.size_rules import SizeRules, size_rules

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

_Configs = Mapping[str, Mapping[str, Any]]
_NOTHING: TypeAdapter[None] = TypeAdapter(None)  # of checks: that they refused nothing is kept


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineCall:
    """parameters: in order. returns: the fields of the call's output; empty if not known.

    facts: what the class states about what it renders.
    """

    parameters: tuple[Parameter, ...]
    returns: frozenset[str]
    rules: SizeRules
    facts: NativeFacts


@kept(TypeAdapter(PipelineCall))
def call_of(class_name: str, configs: _Configs) -> PipelineCall:
    """Return the call of a class. configs: of the components, model_index.json as "index"."""
    made = pipeline_named(class_name)
    pipe = constructed_pipeline(made, configs)
    if is_modular(class_name):
        from framefleet.pipeline.model.modular import fields_given, parameters_called

        parameters, returns = parameters_called(class_name, configs), fields_given(class_name)
    else:
        parameters = with_several(parameters_of(made.__call__), class_name, configs)
        returns = fields_returned(made)
    return PipelineCall(
        parameters=tuple(parameters),
        returns=returns,
        rules=size_rules(made, pipe),
        facts=native_facts(pipe),
    )


@kept(_NOTHING)
def check_pipeline(name: str) -> None:
    """Raise ModelError for what is not a pipeline of diffusers, or of ours."""
    pipeline_named(name)


def _if_modular(class_name: str, components: Collection[str], where: str) -> list[Any] | None:
    return [class_name, sorted(components)] if is_modular(class_name) else None


@kept(_NOTHING, decided_by=_if_modular)
def check_components(class_name: str, components: Collection[str], where: str) -> None:
    """Raise ModelError for a modular model that can run none of its workflows."""
    if not is_modular(class_name):
        return
    from framefleet.pipeline.model.modular import blank

    if lacking := lacking_components(blank(class_name, {})._blocks, components):
        raise ModelError(
            f"{where}: {class_name} cannot run without {', '.join(lacking)}, null in its index",
            "download the whole model, or bring its components into one folder (docs/models.md)",
        )


def has_component(class_name: str, name: str) -> bool:
    """Whether pipelines of a class have a component of that name. Imports diffusers."""
    if is_modular(class_name):
        from framefleet.pipeline.model.modular import blank

        return name in blank(class_name, {}).component_names
    return name in inspect.signature(pipeline_named(class_name)).parameters


@kept(_NOTHING, decided_by=lambda library, name, where: [library, name])
def check_scheduler(library: str, name: str, where: str) -> None:
    """Raise ModelError for what is not a noise scheduler of diffusers, or of ours."""
    import diffusers

    found = own_component(library, name) or exported(diffusers, name)
    if is_standin(found):
        return  # refused with the package that it needs, when it is used
    is_one = isinstance(found, type) and issubclass(found, diffusers.ConfigMixin)
    if not is_one or not issubclass(found, diffusers.SchedulerMixin):
        raise ModelError(
            f"{where}: {library}.{name} is not a noise scheduler", "use a model made for diffusers"
        )


@kept(_NOTHING, decided_by=lambda class_name, configs, where: [class_name, configs])
def check_factors(class_name: str, configs: _Configs, where: str) -> None:
    """Raise ModelError where the model's own pipeline computes another factor than its autoencoder has."""
    pipe = constructed_pipeline(pipeline_named(class_name), configs)
    for name, factor in autoencoder_factors(configs).items():
        computed = pipe.attributes.get(name, factor)
        if computed != factor:
            raise ModelError(
                f"{where}: {class_name} computes {name} {computed}, and its autoencoder's is {factor}",
                "name another pipeline class in model_index.json; a recipe like video_to_video fixes it",
            )


def pipeline_named(name: str) -> type[DiffusionPipeline]:
    """Return the class of that name. Raises ModelError as `check_pipeline` does. Imports diffusers."""
    import diffusers

    if found := _found(name):
        return found
    known = [*PIPELINES, *(known for known in dir(diffusers) if known.endswith("Pipeline"))]
    near = nearest(name, known)
    hint = f"the nearest class is {near[0]}" if near else "use a model made for diffusers"
    problem = f"diffusers {diffusers.__version__} has no pipeline {name!r}"
    raise ModelError(problem, f"{hint}; or update diffusers")


@functools.cache
def _found(name: str) -> type[DiffusionPipeline] | None:
    import diffusers

    if is_modular(name):
        found = modular_pipeline(name)
    else:
        found = own_class(name) if name in PIPELINES else exported(diffusers, name)
    kinds = (diffusers.DiffusionPipeline, diffusers.ModularPipeline)
    is_one = isinstance(found, type) and issubclass(found, kinds)
    return found if is_one and any("__call__" in vars(base) for base in found.__mro__) else None


def fields_returned(pipeline: type) -> frozenset[str]:
    """Return the fields of the output classes that the code of `__call__` names; empty where it names none.

    Annotations say less: many are "tuple", and some another class's.
    """
    from diffusers.utils import BaseOutput

    call = inspect.unwrap(vars(next(c for c in pipeline.__mro__ if "__call__" in vars(c)))["__call__"])
    named = (call.__globals__.get(name) for name in call.__code__.co_names)
    outputs = [one for one in named if isinstance(one, type) and issubclass(one, BaseOutput)]
    fields = (dataclasses.fields(one) for one in outputs if dataclasses.is_dataclass(one))
    return frozenset(field.name for some in fields for field in some)


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
