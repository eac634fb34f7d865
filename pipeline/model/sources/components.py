"""From model_index.json to the pipeline's components, whose classes are checked."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter

from framefleet.pipeline.errors import ModelError
from framefleet.pipeline.model.class_cache import disk_cached
from framefleet.pipeline.model.registry import class_of, is_standin
from framefleet.pipeline.model.specs import model_index

Loader = Literal["diffusers", "transformers"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """One part of a pipeline."""

    name: str
    library: str  # of its class
    class_name: str
    # The library whose `from_pretrained` reads its weights, with its own file names; None without weights.
    loader: Loader | None
    extra_folders: tuple[str, ...] = ()  # of further networks, if it has several

    @property
    def folders(self) -> tuple[str, ...]:
        return (self.name, *self.extra_folders)

    @property
    def network_class(self) -> str:
        """The class of its network, or of each of several."""
        return "ControlNetModel" if self.class_name == model_index.CONTROLNETS else self.class_name

    @property
    def has_weights(self) -> bool:
        return self.loader is not None


def components_of(index: model_index.ModelIndex, folders: Collection[str]) -> tuple[Component, ...]:
    """Return the components of an index. Raises ModelError for a class that may not be loaded."""
    components = []
    for name, (library, class_name) in index.components.items():
        loader: Loader | None = "diffusers"
        extra: tuple[str, ...] = ()
        if (name, library, class_name) == ("controlnet", "diffusers", model_index.CONTROLNETS):
            # Its own `from_pretrained` loads controlnet, controlnet_1, ..., so these must be hashed.
            extra = tuple(model_index.network_folders(name, folders)[1:])
        else:
            called = f"{index.where}: {name} is of {library}.{class_name}"
            loader = _loader_of(library, class_name, called)
        component = Component(
            name=name, library=library, class_name=class_name, loader=loader, extra_folders=extra
        )
        components.append(component)
    return tuple(components)


def components_in(folder: Path) -> tuple[Component, ...]:
    return components_of(
        model_index.read_index(folder), [path.name for path in folder.iterdir() if path.is_dir()]
    )


@disk_cached(
    TypeAdapter(Loader | None),
    decided_by=lambda library, class_name, called: [library, class_name],
    asks_libraries=True,
)
def _loader_of(library: str, class_name: str, called: str) -> Loader | None:
    """Return the library that reads a component's weights; None without weights. called: for messages."""
    from diffusers import BaseGuidance, ModelMixin, SchedulerMixin
    from diffusers.models.modeling_utils import LegacyModelMixin
    from transformers import FeatureExtractionMixin, ImageProcessingMixin, PreTrainedModel, ProcessorMixin
    from transformers.tokenization_utils_base import PreTrainedTokenizerBase

    made = class_of(library, class_name)
    if made is None:
        raise ModelError(f"{called}, which is not installed here", model_index.OWN_CODE)
    if is_standin(made):
        packages = ", ".join(made._backends)
        raise ModelError(f"{called}, which needs the Python packages {packages}", "install them")
    function = getattr(getattr(made, "from_pretrained", None), "__func__", None)
    loader: Loader | None = None  # also for a class that reads weights with its own code
    if function in (ModelMixin.from_pretrained.__func__, LegacyModelMixin.from_pretrained.__func__):
        loader = "diffusers"
    elif function is PreTrainedModel.from_pretrained.__func__:
        loader = "transformers"
    # Components without networks: all that diffusers loads, except whole pipelines and ONNX.
    processors = (FeatureExtractionMixin, ImageProcessingMixin, ProcessorMixin)
    weightless = (SchedulerMixin, BaseGuidance, PreTrainedTokenizerBase, *processors)
    if loader is None and not (isinstance(made, type) and issubclass(made, weightless)):
        raise ModelError(f"{called}, which is not a component of pipelines", model_index.OWN_CODE)
    return loader
