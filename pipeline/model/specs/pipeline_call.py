"""What the call of a pipeline class takes, checks and returns over components of some configs.

Asked of the class and its source, and kept: importing a pipeline of diffusers takes eight seconds of a core.
Only refusals, and what renders, come to the class itself again.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import TypeAdapter

from framefleet.pipeline.errors import ModelError
from framefleet.pipeline.guards.mistakes import nearest
from framefleet.pipeline.model.class_cache import disk_cached
from framefleet.pipeline.model.registry import (
    PIPELINES,
    diffusers_class,
    exported,
    is_standin,
    modular_pipeline,
    own_class,
)
from framefleet.pipeline.model.specs.model_index import Configs, ModelIndex, is_modular
from framefleet.pipeline.model.specs.signature import Parameter, parameters_of, with_several
from framefleet.pipeline.model.specs.source_facts import (
    SourceFacts,
    autoencoder_factors,
    constructed_pipeline,
    source_facts,
)

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineCall:
    """What a call takes and returns."""

    parameters: tuple[Parameter, ...]  # in order
    returns: frozenset[str]  # fields of the call's output; empty if not known
    facts: SourceFacts  # what the class states about what it renders


@disk_cached(TypeAdapter(PipelineCall))
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


@disk_cached(TypeAdapter(None), decided_by=lambda index, configs, folder: [index.class_name, configs])
def check_classes(index: ModelIndex, configs: Configs, folder: str) -> None:
    """Raise ModelError for a pipeline or a scheduler that neither diffusers nor we have, for lacking
    components, and for a pipeline that computes another factor than its autoencoder has.

    configs: as they were checked. folder: what messages call it. That nothing was refused is kept.
    """
    made = pipeline_named(index.class_name)
    names = inspect.signature(made).parameters.keys()
    if is_modular(index.class_name):
        from framefleet.pipeline.model.modular import blank, lacking_components

        pipe = blank(index.class_name, {})
        names = pipe.component_names
        if lacking := lacking_components(pipe._blocks, index.components):
            raise ModelError(
                f"{index.where}: {index.class_name} cannot run without {', '.join(lacking)}, null in its "
                "index",
                "download the whole model, or bring its components into one folder by load_components() and "
                "save_pretrained()",
            )
    if "scheduler" in names and "scheduler" not in configs:
        raise ModelError(f"{index.class_name} in {folder} has no noise scheduler", "use a diffusion pipeline")
    if "scheduler" in index.components:
        _check_scheduler(*index.components["scheduler"], index.where)
    attributes = constructed_pipeline(made, configs).attributes
    for name, factor in autoencoder_factors(configs).items():
        if (computed := attributes.get(name, factor)) != factor:
            raise ModelError(
                f"{folder}: {index.class_name} computes {name} {computed}, and its autoencoder's is {factor}",
                "name another pipeline class in model_index.json; a recipe like video_to_video fixes it",
            )


def _check_scheduler(library: str, name: str, where: str) -> None:
    import diffusers

    made = diffusers_class(library, name)
    bases = (diffusers.ConfigMixin, diffusers.SchedulerMixin)
    # One whose packages are not installed is refused with their names when it is used.
    if not is_standin(made) and not (isinstance(made, type) and all(issubclass(made, b) for b in bases)):
        raise ModelError(
            f"{where}: {library}.{name} is not a noise scheduler", "use a model made for diffusers"
        )


@functools.cache
def pipeline_named(name: str) -> type[DiffusionPipeline]:
    """Return the class of that name. Raises ModelError if it is not a pipeline of diffusers, or of ours."""
    import diffusers

    if is_modular(name):
        made = modular_pipeline(name)
    else:
        made = own_class(name) if name in PIPELINES else exported(diffusers, name)
    bases = (diffusers.DiffusionPipeline, diffusers.ModularPipeline)
    is_pipeline = isinstance(made, type) and issubclass(made, bases)
    if is_pipeline and any("__call__" in vars(base) for base in made.__mro__):
        return made  # type: ignore[no-any-return]
    if is_pipeline:
        raise ModelError(f"{name} of diffusers has no call of its own", "use a class that has one")
    near = nearest(name, [*PIPELINES, *(other for other in dir(diffusers) if other.endswith("Pipeline"))])
    hint = f"the nearest class is {near[0]}" if near else "use a model made for diffusers"
    problem = f"diffusers {diffusers.__version__} has no pipeline {name!r}"
    raise ModelError(problem, f"{hint}; update diffusers; or install the package that has it, as a plugin")


def fields_returned(pipeline: type) -> frozenset[str]:
    """Return the fields of the output classes that the code of `__call__` names; empty where it names none.

    Annotations say less: many are "tuple", and some another class's.
    """
    from diffusers.utils import BaseOutput

    call = inspect.unwrap(vars(next(c for c in pipeline.__mro__ if "__call__" in vars(c)))["__call__"])
    values = (call.__globals__.get(name) for name in call.__code__.co_names)
    outputs = [one for one in values if isinstance(one, type) and issubclass(one, BaseOutput)]
    fields = (dataclasses.fields(one) for one in outputs if dataclasses.is_dataclass(one))
    return frozenset(field.name for some in fields for field in some)
