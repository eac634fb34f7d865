"""Models besides a job's own: declared by name, used by rows, and loaded when a row needs one.

Rows cannot name places: the person who runs the job decides what is opened, and with whose credentials.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from framefleet.pipeline.errors import JobError, ModelError, Refused, shown
from framefleet.pipeline.guards.mistakes import did_you_mean, naming_model
from framefleet.pipeline.model.families.registry import IMAGES_FROM_TEXT, VIDEOS_FROM_TEXT
from framefleet.pipeline.model.lora import NAME
from framefleet.pipeline.model.model import Model, ModelSettings, source_of, weights_of
from framefleet.pipeline.model.options.schema import Options
from framefleet.pipeline.model.registry import class_named
from framefleet.pipeline.model.sources.integrity import model_digest
from framefleet.pipeline.model.specs.dtypes import canonical_dtype, check_dtype
from framefleet.pipeline.model.specs.model_index import Configs
from framefleet.pipeline.model.specs.signature import MODELS, PLACES, InputKind
from framefleet.pipeline.model.specs.spec import PipelineSpec, inspect_model
from framefleet.pipeline.request import is_model

if TYPE_CHECKING:
    from framefleet.pipeline.model.own_pipeline import OwnPipelines

# The arguments of a model that makes an image, or a video, from text; and an example of one.
NEEDED: dict[InputKind, tuple[set[str], str]] = {
    "image": ({"prompt", "height", "width"}, IMAGES_FROM_TEXT),
    "video": ({"prompt"}, VIDEOS_FROM_TEXT),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SecondModel:
    """A declared model, opened."""

    settings: ModelSettings  # which also work on other machines, except device and threads
    spec: PipelineSpec
    files: Mapping[str, str]  # what loading it reads, each with its SHA-256
    digest: str  # of them all


Declared = str | Path | Mapping[str, Any] | ModelSettings | SecondModel


def open_second_models(declared: Mapping[str, Declared]) -> dict[str, SecondModel]:
    """Open declared models; return them by name. A mapping has the fields of `ModelSettings`.

    Reads no weights of the hub. Raises JobError for names that a row could not give, and ModelError for
    models that cannot be used.
    """
    models = {}
    for name, value in declared.items():
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
        if value.options != Options():  # they would change frames, but not row_ids
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
    """Return {"name", "digest"}, with the dtype if one was declared; or why the model cannot be used.

    The row is identified by the files, not by their name.
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
            fix=f"use a model that does, e.g. {example}",
        )
    dtype = canonical_dtype(model.settings.dtype)
    return {"name": name, "digest": model.digest, **({} if dtype == "auto" else {"dtype": dtype})}


class SecondModels:
    """The second models that the rows of one renderer may name."""

    def __init__(self, declared: Mapping[str, SecondModel], *, main: Model) -> None:
        """main: the renderer's own model, with the settings of the whole process."""
        self.declared = declared
        self._shared = {"device": main.environment["device"], "threads": main.settings.threads}
        self._matmul = {"matmul": main.settings.options.matmul}
        # Only one: a GPU may not hold more than that besides the job's own model.
        self._last: tuple[str, Model, OwnPipelines] | None = None

    def opened(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return a row's checked arguments with the models that they name, each with its own pipeline."""
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


# An attribute of a row's own pipeline: called with each other pipeline that is made from it.
AROUND_SIBLINGS = "_around_siblings"


def fitted_arguments(pipe: Any, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a call, with fewer frames if the pipeline has fewer left after its images."""
    own = getattr(type(pipe), "fitted", None)
    return own(pipe, arguments) if own else dict(arguments)


def call_parameters(class_name: str) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(class_named(class_name).__call__).parameters


def is_first_only(configs: Configs) -> bool:
    """Return whether a last image is of no use: tokens have timesteps, or images are embedded one by one."""
    transformer = configs.get("transformer", {})
    singly = transformer.get("image_dim") and not transformer.get("pos_embed_seq_len")
    return bool(singly or configs.get("index", {}).get("expand_timesteps"))
