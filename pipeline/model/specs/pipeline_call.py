"""What the call of a pipeline class takes, checks and returns, and facts in its source, for given configs.

The answers are cached, because importing a pipeline of diffusers takes eight seconds. Each divisor of a size
in the source (`height % 16`, `height // self.vae_scale_factor`) is evaluated with the model's own config.
Modular pipelines have rate, lengths and sizes as properties (`fps`, `max_duration`, `canvas_multiple`), and
others as class constants (`FPS`).
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import functools
import inspect
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from framefleet.pipeline.errors import ModelError
from framefleet.pipeline.guards.mistakes import nearest
from framefleet.pipeline.model import registry
from framefleet.pipeline.model.class_cache import disk_cached
from framefleet.pipeline.model.specs.constructor import Constructed, Names, Unknown, evaluated, method, steps
from framefleet.pipeline.model.specs.model_index import MODEL_INDEX, Configs, ModelIndex, index_of, is_modular
from framefleet.pipeline.model.specs.signature import Parameter, parameters_of, with_several
from framefleet.pipeline.plugin import broken_plugins
from framefleet.pipeline.request import MAX_FPS

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineCall:
    parameters: tuple[Parameter, ...]  # in order
    returns: frozenset[str]  # fields of the call's output; empty if unknown
    facts: SourceFacts  # from the class's source


@disk_cached(TypeAdapter(PipelineCall), asks_libraries=True)
def call_of(class_name: str, configs: Configs) -> PipelineCall:
    """Return the call of a class. configs: of the components, model_index.json as "index"."""
    made = pipeline_named(class_name)
    pipe = constructed_pipeline(made, configs)
    if is_modular(class_name):
        from framefleet.pipeline.model.modular import fields_given, parameters_called

        parameters, returns = parameters_called(class_name, configs), fields_given(class_name)
    else:
        parameters = with_several(parameters_of(made.__call__), class_name, configs)
        returns = fields_returned(made)
    return PipelineCall(parameters=tuple(parameters), returns=returns, facts=source_facts(made, pipe))


@disk_cached(
    TypeAdapter(None),
    decided_by=lambda index, configs, folder: [index.class_name, configs],
    asks_libraries=True,
)
def check_classes(index: ModelIndex, configs: Configs, folder: str) -> None:
    """Raise ModelError if the classes of an index cannot work.

    I.e. for a pipeline or scheduler that neither diffusers nor we have, for missing components, and for a
    pipeline that computes another factor than its autoencoder has. configs: already checked. folder: for
    messages. Success is cached.
    """
    import diffusers

    made = pipeline_named(index.class_name)
    names = inspect.signature(made).parameters.keys()
    if is_modular(index.class_name):
        from framefleet.pipeline.model.modular import blank, lacking_components

        pipe = blank(index.class_name, {})
        names = pipe.component_names
        if lacking := lacking_components(pipe._blocks, index.components):
            missing = ", ".join(lacking)
            raise ModelError(
                f"{index.where}: {index.class_name} cannot run without {missing}, null in its index",
                "download the whole model, or bring its components into one folder by load_components() and "
                "save_pretrained()",
            )
    if "scheduler" in names and "scheduler" not in configs:
        raise ModelError(f"{index.class_name} in {folder} has no noise scheduler", "use a diffusion pipeline")
    if "scheduler" in index.components:
        library, name = index.components["scheduler"]
        kind = registry.class_of(library, name)
        bases = (diffusers.ConfigMixin, diffusers.SchedulerMixin)
        # If its packages are not installed, using it is refused later, with their names.
        is_scheduler = isinstance(kind, type) and all(issubclass(kind, base) for base in bases)
        if not is_scheduler and not registry.is_standin(kind):
            problem = f"{index.where}: {library}.{name} is not a noise scheduler"
            raise ModelError(problem, "use a model made for diffusers")
    attributes = constructed_pipeline(made, configs).attributes
    for name, factor in autoencoder_factors(configs).items():
        if (computed := attributes.get(name, factor)) != factor:
            raise ModelError(
                f"{folder}: {index.class_name} computes {name} {computed}, but its autoencoder has {factor}",
                "name another pipeline class in model_index.json; a recipe like video_to_video fixes it",
            )


@functools.cache
def pipeline_named(name: str) -> type[DiffusionPipeline]:
    """Return the class with this name. Raises ModelError if it is neither diffusers' pipeline nor ours."""
    import diffusers

    if is_modular(name):
        made = registry.modular_pipeline(name)
    else:
        made = registry.own_class(name) if name in registry.PIPELINES else registry.exported(diffusers, name)
    bases = (diffusers.DiffusionPipeline, diffusers.ModularPipeline)
    is_pipeline = isinstance(made, type) and issubclass(made, bases)
    if is_pipeline and any("__call__" in vars(base) for base in made.__mro__):
        return made
    if is_pipeline:
        raise ModelError(f"{name} of diffusers has no `__call__`", "use a class that has one")
    others = (other for other in dir(diffusers) if other.endswith("Pipeline"))
    near = nearest(name, [*registry.PIPELINES, *others])
    hint = f"the nearest class is {near[0]}" if near else "use a model for diffusers"
    for error in broken_plugins():  # one of these may have the class
        raise error
    problem = f"diffusers {diffusers.__version__} has no pipeline {name!r}"
    raise ModelError(problem, f"{hint}; update diffusers; or install the package that has it, as a plugin")


def fields_returned(pipeline: type) -> frozenset[str]:
    """Return the fields of output classes in the code of `__call__`; empty if it names none.

    Annotations say less: many are "tuple", and some name another class.
    """
    from diffusers.utils import BaseOutput

    call = inspect.unwrap(vars(next(c for c in pipeline.__mro__ if "__call__" in vars(c)))["__call__"])
    values = (call.__globals__.get(name) for name in call.__code__.co_names)
    outputs = [kind for kind in values if isinstance(kind, type) and issubclass(kind, BaseOutput)]
    fields = (dataclasses.fields(output) for output in outputs if dataclasses.is_dataclass(output))
    return frozenset(field.name for some in fields for field in some)


_SIDES, _FRAMES, _TEXT = ("height", "width"), ("num_frames", "video_length"), "max_sequence_length"
_METHODS = ("check_inputs", "__call__", "prepare_latents")
# Names of factors in pipelines, and their keys in an autoencoder's config.
_SPATIAL = ("vae_scale_factor_spatial", "vae_spatial_compression_ratio", "vae_scale_factor")
_TEMPORAL = ("vae_scale_factor_temporal", "vae_temporal_compression_ratio")
_FACTORS = {
    _SPATIAL: ("scale_factor_spatial", "spatial_compression_ratio"),
    _TEMPORAL: ("scale_factor_temporal", "temporal_compression_ratio"),
}
# Names of a class's frame rate, as a property or a constant: the usual names first.
_RATES = tuple(
    f"{of}{rate}"
    for of in ("", "native_", "default_", "model_", "video_", "output_", "target_", "sample_")
    for rate in ("fps", "frame_rate", "frames_per_second")
)
_MAX_S, _MAX_COUNT = 86_400.0, 1 << 14  # of a clip; of frames and a side's pixels: ten times any model's


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFacts:
    side_divisor: int = 1  # its code divides height and width by it
    frame_divisor: int = 1  # the same for the number of frames, maybe without the first
    max_text: int | None = None  # the largest `max_sequence_length`
    canvas_multiple: int | None = None  # a property: height and width must be multiples of it
    frame_step: int | None = None  # frames are `frame_step * k + frame_rest`
    frame_rest: int | None = None
    fps: float | None = None  # frames per second
    shortest_s: float | None = None  # of a clip
    longest_s: float | None = None  # of a clip
    height: int | None = None
    width: int | None = None
    num_frames: int | None = None

    def frames_between(self) -> tuple[int | None, int | None]:
        """Return the smallest and the largest number of frames that the step allows."""
        step, rest, fps = self.frame_step or 1, self.frame_rest or 0, self.fps or math.nan
        least, most = (math.nan if s is None else s * fps for s in (self.shortest_s, self.longest_s))
        shortest = None if math.isnan(least) else math.ceil((least - rest) / step) * step + rest
        longest = None if math.isnan(most) else math.floor((most - rest) / step) * step + rest
        return shortest, longest


def constructed_pipeline(made: type, configs: Configs) -> Constructed:
    """Return a pipeline with components of these configs, model_index.json as "index".

    If it is not the model's own class, it gets the autoencoder's factors, as from `as_sibling`.
    """
    index = index_of(configs["index"], MODEL_INDEX)
    parts: dict[str, Constructed | None] = {}
    for name, (library, class_name) in index.components.items():
        parts[name] = None  # e.g. for encoders and tokenizers, whose configs are not read
        if (config := configs.get(name)) is not None:
            # The config is known even if the class is not installed.
            component = registry.class_of(library, class_name)
            parts[name] = Constructed(component if isinstance(component, type) else object, config)
    pipe = Constructed(made, {**index.values, **parts})
    if made.__name__ != index.class_name:
        factors = autoencoder_factors(configs)
        pipe.attributes.update({name: n for name, n in factors.items() if name in pipe.attributes})
    return pipe


def autoencoder_factors(configs: Configs) -> dict[str, int]:
    """Return the factors in the autoencoder's config, by each of their names in pipelines."""
    vae = configs.get("vae", {})
    factors = {names: next(filter(None, map(vae.get, keys)), None) for names, keys in _FACTORS.items()}
    return {name: int(factor) for names, factor in factors.items() if factor for name in names}


def source_facts(made: type, pipe: Any) -> SourceFacts:
    """Return the facts in a class's source. pipe: an instance, or the result of `constructed_pipeline`."""
    rules = [rule for method_name in _METHODS for rule in _rules(made, pipe, method_name)]
    step, rest = _count(pipe, "vae_frames_per_chunk"), _count(pipe, "vae_latents_per_chunk")
    has_step = step is not None and rest is not None and rest < step
    return SourceFacts(
        side_divisor=math.lcm(*(number for name, number in rules if name in _SIDES)),
        frame_divisor=math.lcm(*(number for name, number in rules if name in _FRAMES)),
        max_text=min((number for name, number in rules if name == _TEXT), default=None),
        canvas_multiple=_count(pipe, "canvas_multiple"),
        frame_step=step if has_step else None,
        frame_rest=rest if has_step else None,
        fps=_number(pipe, (*_RATES, *map(str.upper, _RATES)), MAX_FPS),
        shortest_s=_number(pipe, ("min_duration",), _MAX_S),
        longest_s=_number(pipe, ("max_duration",), _MAX_S),
        height=_count(pipe, "default_height"),
        width=_count(pipe, "default_width"),
        num_frames=_count(pipe, "default_num_frames"),
    )


def _number(pipe: Any, names: tuple[str, ...], most: float) -> float | None:
    for name in names:
        with contextlib.suppress(AttributeError, Unknown):
            value = getattr(pipe, name)
            if type(value) in (int, float) and 0 < value <= most:
                return float(value)
    return None


def _count(pipe: Any, name: str) -> int | None:
    value = _number(pipe, (name,), _MAX_COUNT)
    return int(value) if value is not None and value == int(value) else None


def _rules(made: type, pipe: Any, method_name: str) -> Iterator[tuple[str, int]]:
    """Yield (argument, number) for each rule in a method."""
    function = method(made, method_name)
    if function is None:
        return
    names = vars(sys.modules[made.__module__])
    scope: Names = {"self": pipe}
    of_row = {*_SIDES, *_FRAMES, _TEXT}  # names that still have the row's values
    for step in steps(function.body, scope, names):
        rounded = _right_of(ast.Mult, step)
        for node in ast.walk(step):
            for name, expression in _written(node, rounded):
                with contextlib.suppress(Unknown):
                    value: Any = evaluated(expression, scope, names) if name in of_row else None
                    if type(value) in (int, float) and 1 <= value <= _MAX_COUNT and value == int(value):
                        yield name, int(value)
        # Names that are divided, and not multiplied again by the same number, are now in latents.
        is_latents = bool(_right_of(ast.FloorDiv, step) - rounded)
        if isinstance(step, ast.Assign) and len(step.targets) == 1 and is_latents:
            of_row -= {node.id for node in ast.walk(step.targets[0]) if isinstance(node, ast.Name)}


def _written(node: ast.AST, rounded: set[str]) -> Iterator[tuple[str, ast.expr]]:
    """Yield the argument and the number of a rule, if the node has one. rounded: numbers in products."""
    match node:
        case ast.Compare(left=ast.Name(id=name), ops=[ast.Gt()], comparators=[most]) if name == _TEXT:
            yield name, most
        case ast.BinOp(op=ast.Mod(), left=left, right=right):
            yield _argument(left), right
        case ast.BinOp(ast.BinOp(left, ast.FloorDiv(), first), ast.FloorDiv(), second):
            yield _argument(left), ast.BinOp(first, ast.Mult(), second)
        case ast.BinOp(op=ast.FloorDiv(), left=left, right=right):
            # Plain numbers divide values that are already in latents, unless they multiply again.
            if not isinstance(right, ast.Constant) or ast.unparse(right) in rounded:
                yield _argument(left), right


def _argument(expression: ast.expr) -> str:
    """Return the argument in an expression, with or without `- 1` for the first frame; "" for others."""
    match expression:
        case ast.Name(id=name):
            return name
        case ast.Call(func=ast.Name(id="int"), args=[inner]):
            return _argument(inner)
        case ast.BinOp(op=ast.Sub(), left=ast.Name(id=name), right=ast.Constant(value=1)) if name in _FRAMES:
            return name
    return ""


def _right_of(operator: type[ast.operator], step: ast.AST) -> set[str]:
    """Return the right operands of an operator in a statement."""
    nodes = (node for node in ast.walk(step) if isinstance(node, ast.BinOp))
    return {ast.unparse(node.right) for node in nodes if isinstance(node.op, operator)}
