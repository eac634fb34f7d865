"""LoRA files into a pipeline, switched off; or why one does not fit it.

diffusers only warns of weights that it has no place for, and renders without them; here they are refused.
They are looked at under the names that diffusers' own loader gives them, so files of other programs (kohya,
...) fit.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any

from diffusers.utils import (
    convert_state_dict_to_diffusers,
    convert_state_dict_to_peft,
    convert_unet_state_dict_to_peft,
)
from peft import LoraConfig
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils import logging as transformers_logging

from framefleet.pipeline.errors import ModelError
from framefleet.pipeline.hooks.intercept import intercept
from framefleet.pipeline.model.lora import LoraFile, adapter_name
from framefleet.pipeline.model.sources.assembly import blank_pipeline
from framefleet.pipeline.model.sources.selection import SAFETENSORS
from framefleet.pipeline.model.sources.verified_folder import alone
from framefleet.pipeline.model.sources.weights import Weights
from framefleet.pipeline.model.specs.spec import PipelineSpec

# What a LoRA's own description may say besides peft's defaults. The rest makes it more than something added
# to what a layer returns, and some of it names modules that peft imports.
SAID = {
    *("r", "lora_alpha", "lora_dropout", "use_rslora", "use_dora", "fan_in_fan_out", "rank_pattern"),
    *("alpha_pattern", "target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"),
    *("alpha", "rank_dropout", "module_dropout", "rank_dropout_scale", "decompose_both", "decompose_factor"),
    *("use_effective_conv2d", "auto_mapping", "base_model_name_or_path", "revision", "peft_type"),
    *("task_type", "inference_mode", "peft_version"),
}
_PATTERNS = ("target_modules", "exclude_modules", "layers_pattern", "rank_pattern", "alpha_pattern")
HARMLESS: tuple[Any, ...] = (None, True, False, "gaussian", "none", [], {})
MAX_WILDCARDS = 4  # each one more may take as many times longer as a name is long
_MAX_SHOWN = 80
HALVES = {".lora_A.": ".lora_B.", ".lora_B.": ".lora_A."}


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where one weight of a LoRA belongs. layer: None where the model has no such layer."""

    key: str
    layer: nn.Module | None
    weight: Tensor


def check_loras_fit(files: Mapping[str, LoraFile], weights: Weights, spec: PipelineSpec) -> None:
    """Raise ModelError for a LoRA that the model cannot take. Opens none of the model's weights."""
    _refuse_without_support(files, spec.pipeline_class)
    if files:
        blank = blank_pipeline(weights.configs(is_built=True), weights.config_files, weights.components, spec)
        load_loras(blank, files)


def load_loras(pipe: Any, files: Mapping[str, LoraFile]) -> None:
    """Load every file as an adapter, and switch all of them off. Raises ModelError when one does not fit."""
    _refuse_without_support(files, type(pipe))
    for name, file in files.items():
        if reason := _load(pipe, name, file):
            raise ModelError(
                f"loras.{name}: {file.path} does not fit {type(pipe).__name__}: {reason}",
                "use a LoRA that was made for this model",
            )
    for layer in _adapted_layers(pipe):
        layer.eval()  # made in training mode: a dropout would be on
        layer.set_adapter([])


def _refuse_without_support(files: Mapping[str, LoraFile], pipeline_class: type) -> None:
    if files and not hasattr(pipeline_class, "load_lora_weights"):
        raise ModelError(f"{pipeline_class.__name__} takes no LoRAs", "leave `loras:` out")


def _load(pipe: Any, name: str, file: LoraFile) -> str | None:
    """Load one file; return why it does not fit."""
    places: list[Place] = []

    def converted(_: str, convert: Any, *args: Any, **kwargs: Any) -> Any:
        """Look at the weights after diffusers named them in its way, and before it changes the model."""
        found = convert(*args, **kwargs)
        parts = found if isinstance(found, tuple) else (found, None)
        weights, metadata = parts[0], parts[-1]
        places.extend(_places(pipe, weights, file.lora.component))
        none = [] if places else ["it holds no weights"]
        reason = next(chain(none, _misfits(places), _changes(metadata or {})), None)
        if reason:
            raise ValueError(reason)
        return found

    try:
        with alone(), _no_false_alarms(), intercept({name: pipe}, converted, method="lora_state_dict"):
            pipe.load_lora_weights(
                str(file.path.parent),
                weight_name=file.path.name,
                adapter_name=adapter_name(name),
                use_safetensors=True if file.path.suffix == SAFETENSORS else None,
                local_files_only=True,
                **({"load_into_transformer_2": True} if file.lora.component == "transformer_2" else {}),
            )
    except Exception as error:  # ours, or whatever a converter or peft makes of a file that is not for them
        return (str(error).strip().splitlines() or [type(error).__name__])[0]
    adapted = [layer for layer in _adapted_layers(pipe) if adapter_name(name) in layer.r]
    if any(_is_unfilled(layer) for layer in adapted):
        return "it lacks weights that its own description names"
    filled = {id(layer.base_layer) for layer in adapted}
    unused = (place.key for place in places if id(_base(place.layer)) not in filled)
    return next((f"diffusers has no use for {key}" for key in unused), None)


@contextmanager
def _no_false_alarms() -> Iterator[None]:
    """Silence what is said when a second LoRA is loaded: that the first is there, and is missing from it."""
    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Already found a `peft_config`")
            yield
    finally:
        transformers_logging.set_verbosity(level)


def _is_unfilled(layer: Any) -> bool:
    """Whether something was made and not loaded, as DoRA's magnitudes where the file has none."""
    is_real = any(not weight.is_meta for weight in layer.base_layer.parameters())
    return is_real and any(weight.is_meta for weight in layer.parameters())


def _places(pipe: Any, weights: Mapping[str, Tensor], component: str | None) -> Iterator[Place]:
    for part in dict.fromkeys(key.partition(".")[0] for key in weights):
        own = {key.removeprefix(f"{part}."): w for key, w in weights.items() if key.startswith(f"{part}.")}
        network = getattr(pipe, component or part, None)
        modules = network.named_modules() if isinstance(network, nn.Module) else ()
        layers = {name: module for name, module in modules if name}
        for key, weight in _as_peft_names(own, network).items():
            layer = layers.get(key.partition(".lora_")[0].partition(".lokr_")[0])
            yield Place(key=f"{component or part}.{key}", layer=layer, weight=weight)


def _as_peft_names(weights: dict[str, Tensor], network: Any) -> dict[str, Tensor]:
    """Return one component's weights under the names that diffusers' loader gives to peft.

    A copy of what `load_lora_into_text_encoder` and `load_lora_adapter` do (diffusers 0.42): they keep it to
    themselves.
    """
    if isinstance(network, PreTrainedModel):
        named: dict[str, Tensor] = convert_state_dict_to_peft(convert_state_dict_to_diffusers(weights))
        is_flat = not hasattr(network, "text_model")
        return {key.removeprefix("text_model.") if is_flat else key: w for key, w in named.items()}
    if any(".lora_A" in key or ".lokr_" in key for key in weights):
        return weights
    converted: dict[str, Tensor] = convert_unet_state_dict_to_peft(weights)
    return converted


def _misfits(places: Iterable[Place]) -> Iterator[str]:
    """Yield what is wrong, weight by weight."""
    keys = {place.key for place in places}
    for place in places:
        width, own = _widths(place)
        if place.layer is None:
            yield f"it has no layer for {place.key}"
        elif width != own:
            yield f"{place.key} is made for a layer {width} wide, and the model's is {own}"
        elif ".lora_" not in place.key and ".lokr_" not in place.key:
            yield f"{place.key} is not a weight of a LoRA"
        elif any(half in place.key and place.key.replace(half, HALVES[half]) not in keys for half in HALVES):
            yield f"{place.key} has no counterpart in the file"


def _changes(metadata: Mapping[str, Any]) -> Iterator[str]:
    """Yield what in a LoRA's own description would change rows that do not use it, or never end."""
    usual = LoraConfig().to_dict()
    for key, value in metadata.items():
        name = key.rpartition(".")[2]
        if name not in SAID and value not in HARMLESS and value != usual.get(name):
            yield f"it is one that changes the model's own weights ({key} is {repr(value)[:_MAX_SHOWN]})"
        if name in _PATTERNS and not all(map(_is_simple, [value] if isinstance(value, str) else value or ())):
            yield f"{key} is a pattern too complicated to be tried on every name: {repr(value)[:_MAX_SHOWN]}"


def _is_simple(pattern: Any) -> bool:
    """Tell whether a regular expression ends soon whatever it is tried on: nothing repeated is repeated."""
    repeated = re.findall(r"[*+{?]", str(pattern))
    return len(repeated) <= MAX_WILDCARDS and not re.search(r"\)[*+{?]", str(pattern))


def _widths(place: Place) -> tuple[int | None, int | None]:
    """Return for how wide a layer the weight is made, and how wide the model's is."""
    base = _base(place.layer)
    if place.key.endswith(".lora_A.weight"):
        return place.weight.shape[1], getattr(base, "in_features", getattr(base, "in_channels", None))
    if place.key.endswith(".lora_B.weight"):
        return place.weight.shape[0], getattr(base, "out_features", getattr(base, "out_channels", None))
    return None, None


def _base(layer: Any) -> Any:
    """Return the model's own layer below those of adapters that were loaded before."""
    return getattr(layer, "base_layer", layer)


def _adapted_layers(pipe: Any) -> list[Any]:
    networks = [part for part in pipe.components.values() if isinstance(part, nn.Module)]
    return [layer for network in networks for layer in network.modules() if isinstance(layer, BaseTunerLayer)]
