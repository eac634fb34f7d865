"""Models and pipelines besides a job's own.

Second models are declared by name, named by rows, and loaded when a row comes to one. A row names no places:
whoever runs the job says what is opened, with whose credentials.

Siblings do another task with the same components. diffusers has a class for each task. Where one set of
weights does several of them, its family says so.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from framefleet.pipeline.errors import JobError, ModelError, RecipeError, Refused, shown
from framefleet.pipeline.guards.mistakes import did_you_mean, naming_model
from framefleet.pipeline.model.families.family import SiblingTask
from framefleet.pipeline.model.families.registry import FAMILIES, IMAGES_FROM_TEXT, VIDEOS_FROM_TEXT
from framefleet.pipeline.model.lora import NAME
from framefleet.pipeline.model.model import Model, ModelSettings, source_of, weights_of
from framefleet.pipeline.model.options.schema import Options
from framefleet.pipeline.model.registry import class_named
from framefleet.pipeline.model.sources.integrity import model_digest
from framefleet.pipeline.model.specs.dtypes import canonical_dtype, check_dtype
from framefleet.pipeline.model.specs.model_index import Configs
from framefleet.pipeline.model.specs.pipeline_call import autoencoder_factors
from framefleet.pipeline.model.specs.signature import MODELS, PLACES, InputKind
from framefleet.pipeline.model.specs.spec import PipelineSpec, inspect_model
from framefleet.pipeline.request import Request, is_model

if TYPE_CHECKING:
    from framefleet.pipeline.model.own_pipeline import OwnPipelines

# What the call of a model takes that makes an image, or a video, from text; and such a model.
NEEDED: dict[InputKind, tuple[set[str], str]] = {
    "image": ({"prompt", "height", "width"}, IMAGES_FROM_TEXT),
    "video": ({"prompt"}, VIDEOS_FROM_TEXT),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SecondModel:
    """A declared model, opened."""

    settings: ModelSettings  # as other machines find it too, but for device and threads
    spec: PipelineSpec
    files: Mapping[str, str]  # what loading it reads, each with its SHA-256
    digest: str  # of them all


Declared = str | Path | Mapping[str, Any] | ModelSettings | SecondModel


def open_second_models(given: Mapping[str, Declared]) -> dict[str, SecondModel]:
    """Return declared models by name, opened; a mapping has the fields of `ModelSettings`.

    Reads what naming a model reads: no weights of the hub. Raises JobError for names that a row could not
    give, and ModelError for models that cannot be used.
    """
    models = {}
    for name, value in given.items():
        if not NAME.fullmatch(name):
            fix = "use letters, digits, - and _"
            raise JobError(f"second_models: {name!r} cannot be a model's name", fix)
        if isinstance(value, SecondModel):
            models[name] = value
            continue
        if not isinstance(value, ModelSettings):
            value = ModelSettings(**(value if isinstance(value, Mapping) else {"path": value}))
            value = replace(value, path=str(value.path))
        if value.ip_adapter:
            raise JobError(f"second_models.{name}.ip_adapter is set", "leave it out: no row gives its image")
        if value.options != Options():  # they would change frames, and no row_id
            raise JobError(f"second_models.{name}.options is set", "leave it out: second models have none")
        with naming_model(f"second_models.{name}"):
            source = source_of(value)
            weights = weights_of(value, source)
            spec = inspect_model(weights.configs())
            check_dtype(value.dtype, spec.components)
            files = weights.digests()
        settings = replace(value, path=source.path, revision=source.revision)
        models[name] = SecondModel(settings=settings, spec=spec, files=files, digest=model_digest(files))
    return models


def check_second_model(argument: str, cell: Any, declared: Mapping[str, SecondModel]) -> Any:
    """Return {"name", "digest"}, and the dtype where one was declared; or why it cannot be used.

    What identifies the row are the files, and not their name.
    """
    if not isinstance(cell, str):
        return Refused(reason="it must be the name of a declared model", fix="write it as text")
    if (name := cell.strip()) not in declared:
        fix = did_you_mean(name, declared) if declared else "declare it: `second_models: {flux: ...}`"
        return Refused(reason=f"the job declares no second model {shown(name)}", fix=fix)
    model, kind = declared[name], MODELS[argument]
    needed, example = NEEDED[kind]
    starts_from_one = any(p.required and p.kind in PLACES for p in model.spec.parameters.values())
    if model.spec.kind != kind or not set(model.spec.parameters) >= needed or starts_from_one:
        return Refused(
            reason=f"{model.spec.class_name} does not make {kind}s from text alone",
            fix=f"use a model that does, as {example}",
        )
    dtype = canonical_dtype(model.settings.dtype)
    return {"name": name, "digest": model.digest, **({} if dtype == "auto" else {"dtype": dtype})}


class SecondModels:
    """Those that the rows of one renderer may name."""

    def __init__(self, declared: Mapping[str, SecondModel], *, main: Model) -> None:
        """main: the renderer's own model, which says what holds for the whole process."""
        self.declared = declared
        self._shared = {"device": main.environment["device"], "threads": main.settings.threads}
        self._matmul = {"matmul": main.settings.options.matmul}
        # One besides the job's own is as much as a GPU may hold.
        self._last: tuple[str, Model, OwnPipelines] | None = None

    def opened(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return a row's checked arguments with the models that they name, loaded, each with a pipeline of
        the row's own."""
        return {name: self._load(value) if is_model(value) else value for name, value in arguments.items()}

    def _load(self, cell: Mapping[str, Any]) -> Model:
        name, declared = cell["name"], self.declared[cell["name"]]
        if declared.digest != cell["digest"]:
            raise ModelError(
                f"the model {declared.settings.name} has changed since the row was checked",
                "restore the old model, or run the same command again to use the new one",
            )
        if self._last is None or self._last[0] != name:
            from framefleet.pipeline.model.load import load
            from framefleet.pipeline.model.own_pipeline import OwnPipelines

            self._last = None
            options = declared.settings.options.model_copy(update=self._matmul)
            settings = replace(declared.settings, options=options, **self._shared)
            model = load(settings, declared.files)
            self._last = name, model, OwnPipelines(model.pipe)
        _, model, pipelines = self._last
        return replace(model, pipe=pipelines.make())


def arguments_for(model: Model, request: Request, **given: Any) -> dict[str, Any]:
    """Return what a second model is called with: the row's prompts and what is given, else as its preset."""
    prompts = {name: request.arguments.get(name) for name in ("prompt", "negative_prompt")}
    names = model.spec.parameters
    own = {name: v for name, v in {**prompts, **given}.items() if v is not None and name in names}
    return {**model.spec.defaults(), **own}


# An attribute of a row's own pipeline: called with each other pipeline that is made of it.
AROUND_SIBLINGS = "_around_siblings"
SIBLINGS = tuple(sibling for family in FAMILIES for sibling in family.siblings)


def find_sibling(
    class_name: str, task: SiblingTask, configs: Configs, *, redraws: bool = False
) -> str | None:
    """Return the name of the class that does `task` with the components of a `class_name`, if there is one.

    configs: of the model's components, by name, and model_index.json as "index". redraws: it must take the
    lengths of clips that `class_name` renders.
    """
    try:
        return sibling_class(class_name, task, configs, redraws=redraws)
    except RecipeError:
        return None


def sibling_class(class_name: str, task: SiblingTask, configs: Configs, *, redraws: bool = False) -> str:
    """Return what `find_sibling` does, or raise RecipeError with the models that can."""
    of_task = [sibling for sibling in SIBLINGS if sibling.task == task]
    if any(sibling.target == class_name for sibling in of_task):
        return class_name
    entry = next((sibling for sibling in of_task if sibling.source == class_name), None)
    if entry is None:
        fix = f"models that can: {', '.join(sibling.source for sibling in of_task)}"
        raise RecipeError(f"diffusers has no {task} for the weights of {class_name}", fix)
    if not entry.fits(configs, redraws=redraws):
        reason, fix = entry.otherwise
        raise RecipeError(f"{class_name} of this model cannot do {task}: {reason}", fix)
    return entry.target


def as_sibling(pipe: Any, class_name: str) -> Any:
    """Return a `class_name` over the components of `pipe`, its scheduler included, without a progress bar.

    Not `from_pipe`, which casts all components to fp32.
    """
    if type(pipe).__name__ == class_name:
        return pipe
    made = class_named(class_name)
    noising = next((sibling.noising for sibling in SIBLINGS if sibling.target == class_name), None)
    if noising and not hasattr(pipe.scheduler, noising):
        raise RecipeError(
            f"{class_name} cannot use the scheduler {type(pipe.scheduler).__name__}",
            "use flow_euler, or leave the scheduler out",
        )
    parts = {**pipe.config, **pipe.components}
    names = inspect.signature(made.__init__).parameters
    sibling = made(**{name: parts[name] for name in names if name in parts})
    for name, factor in autoencoder_factors(configs_of(pipe)).items():
        if hasattr(sibling, name):  # it may have computed another, of which nothing fits
            setattr(sibling, name, factor)
    sibling.set_progress_bar_config(disable=True)
    if around := vars(pipe).get(AROUND_SIBLINGS):
        around(sibling)
    return sibling


def configs_of(pipe: Any) -> dict[str, Mapping[str, Any]]:
    """Return the configs of a loaded pipeline, as the checks read them from its folder."""
    configs = {name: getattr(part, "config", None) for name, part in pipe.components.items()}
    return {"index": pipe.config} | {name: c for name, c in configs.items() if isinstance(c, Mapping)}


def accepted(pipe: Any, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of a row's arguments that the call of `pipe` has too."""
    parameters = inspect.signature(type(pipe).__call__).parameters
    return {name: value for name, value in arguments.items() if name in parameters}


def fitted_arguments(pipe: Any, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a call, with fewer frames where images leave the pipeline fewer."""
    own = getattr(type(pipe), "fitted", None)
    return own(pipe, arguments) if own else dict(arguments)


def call_parameters(class_name: str) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(class_named(class_name).__call__).parameters


def is_first_only(configs: Configs) -> bool:
    """Whether a last image is of no use: each token has a timestep, or pictures are embedded one by one."""
    transformer = configs.get("transformer", {})
    singly = transformer.get("image_dim") and not transformer.get("pos_embed_seq_len")
    return bool(singly or configs.get("index", {}).get("expand_timesteps"))
