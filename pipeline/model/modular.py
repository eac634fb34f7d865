"""Make modular pipelines of diffusers callable like its other pipelines.

Each class gets a signature: the inputs of its blocks, and the scales of its guiders, so that rows can set
them. The call itself, and all computation, is diffusers' own.
"""

from __future__ import annotations

import ast
import contextlib
import copy
import functools
import inspect
import json
import logging
import re
from collections.abc import Collection, Iterator, Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import diffusers
import torch
from diffusers.modular_pipelines import InputParam

from framefleet.pipeline.errors import ModelError, Refused
from framefleet.pipeline.guards.mistakes import did_you_mean
from framefleet.pipeline.model.specs.constructor import module_source
from framefleet.pipeline.model.specs.model_index import DENOISERS, OWN_CODE, Configs, ModelIndex, read_object
from framefleet.pipeline.model.specs.signature import PLACES, Parameter, parameter_of
from framefleet.pipeline.outputs.frames.result import WRITTEN_PROMPT

if TYPE_CHECKING:
    from framefleet.pipeline.model.specs.spec import PipelineSpec

# Visible outputs: their names in blocks, and in the outputs of other pipelines.
SEEN = {"videos": "frames", "images": "images"}
# For pipelines that were composed, or cut to a workflow: diffusers then uses the blocks of the class.
_ANY_BLOCKS = (None, "SequentialPipelineBlocks", "ModularPipelineBlocks")
_GUIDER = re.compile(r"(\w+_)?guider(_\d+)?")  # names of guiders in blocks
_SCALE = "scale"  # names of a guider's strengths end with this; other settings say when and how it guides
_KEYWORD = inspect.Parameter.KEYWORD_ONLY


class Called(diffusers.ModularPipeline):  # type: ignore[misc]  # diffusers is not typed
    """Adds what a modular pipeline lacks to be used like the others."""

    _exclude_from_cpu_offload: tuple[str, ...] = ()

    def __call__(self, **arguments: Any) -> SimpleNamespace:
        """Return the blocks' outputs, with frames or images. Guidance scales are for this call only.

        If a block rewrites the prompt, the new prompt is returned too.
        """
        state = super(Called, guided(self, arguments)).__call__(**without_scales(self, arguments))
        fields = {SEEN.get(name, name): state.get(name) for name in _outputs(self)}
        prompt = state.get("prompt")
        if isinstance(prompt, str) and prompt != arguments.get("prompt"):
            fields[WRITTEN_PROMPT] = prompt
        return SimpleNamespace(**fields)

    @property
    def device(self) -> torch.device:
        """The denoiser's device, where rows are computed: text encoders may be parked on a CPU."""
        denoiser = next((part for name in DENOISERS if (part := getattr(self, name, None)) is not None), None)
        return super().device if denoiser is None else denoiser.device

    def set_progress_bar_config(self, **settings: Any) -> None:
        """Also configure nested blocks, which diffusers 0.42 leaves out."""
        for block in _with_inner(self._blocks):
            if hasattr(block, "set_progress_bar_config"):
                block.set_progress_bar_config(**settings)


@functools.cache
def modular_class(name: str) -> type | None:
    """Return diffusers' modular pipeline with this name, with a signature; None if there is none."""
    # It only logs for each guider that guiders are experimental, and each row makes one.
    logging.getLogger(diffusers.BaseGuidance.__module__).setLevel(logging.ERROR)
    base: Any = getattr(diffusers, name, None)
    is_pipeline = isinstance(base, type) and issubclass(base, diffusers.ModularPipeline)
    if not is_pipeline or not base.default_blocks_name:
        return None

    def call(self: Any, **arguments: Any) -> SimpleNamespace:
        return Called.__call__(self, **arguments)

    made = type(name, (Called, base), {"__call__": call, "__module__": __name__})
    call.__signature__ = inspect.Signature(_parameters(made()))  # type: ignore[attr-defined]
    return made


def blank(class_name: str, configs: Configs) -> Any:
    """Return a pipeline without networks, with the model's own guiders: for inspection, not for calls."""
    own = {name: config for name, config in configs.items() if _GUIDER.fullmatch(name)}
    return _blank(class_name, json.dumps(own, sort_keys=True))


def block_configs(index: ModelIndex, folder: Path) -> dict[str, dict[str, Any]]:
    """Return the configs of guiders in the folder, and of a scheduler that the blocks make.

    Raises ModelError for an index with other blocks than its class has, or with components that do not fit.
    """
    pipe = blank(index.class_name, {})
    blocks = index.values.get("_blocks_class_name")
    if blocks not in (*_ANY_BLOCKS, pipe.default_blocks_name):
        problem = f"{index.where} is for the blocks {str(blocks)[:80]!r}, not {pipe.default_blocks_name}"
        raise ModelError(problem, OWN_CODE)
    configs = {}
    for name, (_, class_name) in index.components.items():
        if name not in pipe.component_names:
            problem = f"{index.where}: {index.class_name} has no component {name!r}"
            raise ModelError(problem, did_you_mean(name, pipe.component_names))
        if isinstance(getattr(pipe, name), diffusers.BaseGuidance):
            guider: Any = getattr(diffusers, class_name, None)
            called = f"{index.where}: {name} is a {class_name}"
            is_guider = isinstance(guider, type) and issubclass(guider, diffusers.BaseGuidance)
            if not is_guider:
                raise ModelError(f"{called}, which is not a guider", OWN_CODE)
            if guider.prepare_models is not diffusers.BaseGuidance.prepare_models:
                problem = f"{called}, which changes the network around each forward, but rows share forwards"
                raise ModelError(problem, "use another guider, e.g. ClassifierFreeGuidance")
        if _GUIDER.fullmatch(name):
            configs[name] = read_object(folder / name / "guider_config.json") | {"_class_name": class_name}
    if scheduler := getattr(pipe, "scheduler", None):
        configs["scheduler"] = {"_class_name": type(scheduler).__name__, **scheduler.config}
    return configs


def parameters_called(class_name: str, configs: Configs) -> list[Parameter]:
    return [parameter_of(parameter) for parameter in _parameters(blank(class_name, configs))]


@functools.cache
def inputs_of(kind: Any) -> frozenset[str]:
    return frozenset(kind()._blocks.input_names)


def scales_of(pipe: Any) -> Iterator[tuple[str, str, str]]:
    """Yield (argument, guider, scale): ("audio_stg_scale", "audio_guider", "stg_scale")."""
    kind: Any = type(pipe)
    for guider, part in pipe.components.items():
        guidance: Any = type(part)
        for scale in _scale_names(guidance) if isinstance(part, diffusers.BaseGuidance) else ():
            argument = guider.replace("guider", scale)
            if argument not in inputs_of(kind):
                yield argument, guider, scale


def guiding(pipe: Any, arguments: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return a call's changes to each guider, for `guider.new(**changes)`. A scale switches its guider on."""
    changes: dict[str, dict[str, Any]] = {}
    for argument, guider, scale in scales_of(pipe):
        if arguments.get(argument) is not None:
            changes.setdefault(guider, {"enabled": True})[scale] = arguments[argument]
    return changes


def guided(pipe: Any, arguments: Mapping[str, Any]) -> Any:
    """Return a copy of the pipeline with these guidance scales, and the same other components."""
    own = copy.copy(pipe)
    for name, changes in guiding(pipe, arguments).items():
        setattr(own, name, getattr(pipe, name).new(**changes))
    return own


def without_scales(pipe: Any, arguments: Mapping[str, Any]) -> dict[str, Any]:
    scales = {argument for argument, _, _ in scales_of(pipe)}
    return {name: value for name, value in arguments.items() if name not in scales}


def fields_given(class_name: str) -> frozenset[str]:
    return frozenset(SEEN.get(name, name) for name in _outputs(blank(class_name, {})))


def lacking_components(blocks: Any, components: Collection[str]) -> list[str]:
    """Return the components that a model lacks for its nearest workflow; [] if one can run."""
    workflows = getattr(blocks, "_workflow_map", None) or {"": {}}  # `available_workflows`, with their inputs
    inputs = [entry[0] if isinstance(entry, tuple) else entry for entry in workflows.values()]
    executed = [blocks.get_execution_blocks(**switches) for switches in inputs]
    return min((sorted(needed_components(some).difference(components)) for some in executed), key=len)


def needed_components(blocks: Any) -> set[str]:
    """Return the components that come from a model's folder and that a block uses without a None check."""
    return {
        spec.name
        for block in _with_inner(blocks)
        if not block.sub_blocks
        for spec in block.expected_components
        if spec.default_creation_method == "from_pretrained" and not _asks_for(block.__class__, spec.name)
    }


@functools.cache
def _asks_for(block: type, component: str) -> bool:
    """Return whether a block, or a function that gets the component from it, compares it with None."""
    module = module_source(block)
    functions = {node.name: node for node in module.body if isinstance(node, ast.FunctionDef)}
    own = [node for node in module.body if isinstance(node, ast.ClassDef) and node.name == block.__name__]
    written = rf"components\.{component} is|components, '{component}', None\) is"
    places: list[tuple[ast.AST, str]] = [(node, written) for node in own]
    for call in (node for caller in (*own, *functions.values()) for node in ast.walk(caller)):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in functions:
            function = functions[call.func.id]
            names = [argument.arg for argument in function.args.args]
            by_name = {keyword.arg: keyword.value for keyword in call.keywords}
            for name, value in (*zip(names, call.args, strict=False), *by_name.items()):
                if ast.unparse(value) == f"components.{component}":
                    places.append((function, rf"(?<![.\w]){name} is"))
    conditions = (
        (written, ast.unparse(node.test))
        for place, written in places
        for node in ast.walk(place)
        if isinstance(node, ast.If | ast.IfExp)
    )
    return any(re.search(rf"(?:{written}) (not )?None", test) for written, test in conditions)


@functools.lru_cache(64)
def _blank(class_name: str, guiders: str) -> Any:
    pipe = modular_class(class_name)()  # type: ignore[misc]  # the class is in a checked index
    for name, config in json.loads(guiders).items():
        try:
            guider = getattr(diffusers, config["_class_name"]).from_config(config)
            guider.num_conditions, [float(value) for key, value in config.items() if key.endswith(_SCALE)]
        except Exception as error:  # diffusers' constructors compute with values from anybody
            problem = f"{name} cannot be made from its config: {error}"[:300]
            raise ModelError(problem, "fetch the model again") from None
        setattr(pipe, name, guider)
    return pipe


def _parameters(pipe: Any) -> list[inspect.Parameter]:
    """Return the parameters of a call. Only text and media are required: blocks get the rest from others."""
    # If a default is None, use the default of the blocks that run in a call without inputs.
    usual = {field.name: field.default for field in pipe._blocks.get_execution_blocks().inputs}
    made = {field.name for field in pipe._blocks.intermediate_outputs}
    parameters = []
    for field in pipe._blocks.inputs:
        if not field.name or field.name.startswith("_"):
            continue
        default = usual.get(field.name) if field.default is None else field.default
        hint = field.type_hint
        if not hint:  # diffusers' usual type for this name; `prompt_2` is like `prompt`
            with contextlib.suppress(ValueError):
                hint = InputParam.template(re.sub(r"_\d+$", "", field.name)).type_hint
        hint = hint or inspect.Parameter.empty
        parameter = inspect.Parameter(field.name, _KEYWORD, annotation=hint)
        kind = parameter_of(parameter).kind
        if not (field.required and kind in ("str", *PLACES) and default is None):
            parameter = parameter.replace(default=default)
            kind = parameter_of(parameter).kind
        if field.name not in made or kind not in PLACES:
            parameters.append(parameter)
    for argument, name, scale in scales_of(pipe):
        guider = getattr(pipe, name)
        # The scale of a call without this argument; None if it does not guide.
        default = float(guider.config[scale]) if guider._enabled else None
        parameters.append(inspect.Parameter(argument, _KEYWORD, default=default, annotation=float))
    return parameters


@functools.cache
def _scale_names(guidance: Any) -> tuple[str, ...]:
    names = inspect.signature(guidance.__init__).parameters
    return tuple(name for name in names if name.endswith(_SCALE))


def _outputs(pipe: Any) -> list[str]:
    """Return the names of the blocks' outputs; if blocks do not define them, those of the last block.

    diffusers (0.42) would then list everything that any block passes to the next one.
    """
    blocks: Any = pipe._blocks
    kind = diffusers.SequentialPipelineBlocks
    while isinstance(blocks, kind) and type(blocks).outputs is kind.outputs and blocks.sub_blocks:
        blocks = next(reversed(blocks.sub_blocks.values()))
    return blocks.output_names


def _with_inner(block: Any) -> Iterator[Any]:
    yield block
    for inner in block.sub_blocks.values():
        yield from _with_inner(inner)


_Problems = Iterator[tuple[str, Refused]]
# A row's arguments by name: whether they are set, or for switches whether they are on.
_Given = Mapping[str, bool | None]
_NEGATIVE = "negative_prompt_embeds"
_UNREAD = Refused(
    reason="no block reads it in a row with these arguments", fix="leave it out, or add what it belongs to"
)
_KINDS = 1024  # combinations of arguments; a table has a handful


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kind:
    unread: frozenset[str]  # arguments that no block reads
    missing: tuple[tuple[str, Refused], ...]
    is_guided: bool  # the blocks fail without guidance


class ModularRows:
    """The `rows.Rules` of one model. Rows that set the same arguments are checked once."""

    def __init__(self, spec: PipelineSpec) -> None:
        self._spec = spec
        self._inputs = inputs_of(modular_class(spec.class_name))
        self._pipe = blank(spec.class_name, spec.configs)
        self._scales = [argument for argument, _, _ in scales_of(self._pipe)]
        self._kind_of = functools.lru_cache(_KINDS)(self._looked_at)
        self._is_guided_by = functools.lru_cache(_KINDS)(self._asks_for_negative)

    def __call__(
        self, arguments: dict[str, Any], own: Set[str]
    ) -> tuple[dict[str, Any], list[tuple[str, Refused]]]:
        """Return the arguments that the row's blocks read, and their problems. own: those that it sets."""
        presence = [
            (name, value if value is None or value is False else True) for name, value in arguments.items()
        ]
        kind = self._kind_of(tuple(presence))
        problems = [*((name, _UNREAD) for name in sorted(kind.unread & own)), *kind.missing]
        if kind.is_guided and not self._is_guided_by(*map(arguments.get, self._scales)):
            reason = "that switches guidance off, without which these blocks fail"
            problems.append(("guidance_scale", Refused(reason=reason, fix="use another scale, e.g. 1.01")))
        return {name: value for name, value in arguments.items() if name not in kind.unread}, problems

    def _looked_at(self, items: tuple[tuple[str, bool | None], ...]) -> _Kind:
        presence = dict(items)
        blocks = self._blocks_of(presence)
        reads = blocks.input_names
        return _Kind(
            unread=frozenset(name for name in presence if name in self._inputs and name not in reads),
            missing=tuple(self._missing(blocks, presence)),
            # Some blocks need its embedding, which is not made without guidance (0.42).
            is_guided=_NEGATIVE in blocks.required_inputs,
        )

    def _missing(self, blocks: Any, presence: _Given) -> _Problems:
        """Yield required inputs that are missing, and inputs for which the model lacks a component."""
        settable = self._spec.settable()
        for name in sorted(settable.keys() & blocks.required_inputs):
            if presence.get(name) is None and settable[name].kind in ("str", *PLACES):
                yield name, Refused(reason="a row with these arguments needs it", fix="fill it in")
        lacking = needed_components(blocks).difference(self._spec.components)
        for name in presence if lacking else ():
            rest = {other: value for other, value in presence.items() if other != name}
            if saved := sorted(lacking - needed_components(self._blocks_of(rest))):
                lacking = lacking.difference(saved)
                reason = f"the model has no {' and no '.join(saved)}, which it needs"
                yield name, Refused(reason=reason, fix="leave it out, or use a model that has it")
        if lacking:
            reason = f"the model has no {' and no '.join(sorted(lacking))}, which this row needs"
            yield "prompt", Refused(reason=reason, fix="use the inputs of another workflow")

    def _blocks_of(self, presence: _Given) -> Any:
        """Return the blocks that run for these arguments."""
        # Blocks depend on whether an input is set; for switches, on whether they are on.
        switches = {name: value is not False for name, value in presence.items() if name in self._inputs}
        return self._pipe._blocks.get_execution_blocks(**switches)

    def _asks_for_negative(self, *scales: float | None) -> bool:
        own = guided(self._pipe, dict(zip(self._scales, scales, strict=True)))
        return bool(getattr(own, "requires_unconditional_embeds", True))
