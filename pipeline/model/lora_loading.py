"""Load LoRA files into a pipeline, switched off; or explain why one does not fit.

Each weight of a file must end up in a layer of its adapter, and each weight of the adapter must come from the
file. diffusers' converters rename, split, join, scale and drop weights, so the tensors carry the names that
they come from (`Sourced`) through all computations. A weight that is read as a number, e.g. an `alpha` that
others are multiplied by, counts as used.

Refusals are in our own words, because messages of diffusers and peft are made for their developers.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers.utils import (
    convert_state_dict_to_diffusers,
    convert_state_dict_to_peft,
    convert_unet_state_dict_to_peft,
)
from peft import LoraConfig
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from transformers import PreTrainedModel
from transformers.utils import logging as transformers_logging

from framefleet.pipeline.errors import FramefleetError, ModelError, shown
from framefleet.pipeline.hooks.intercept import intercept
from framefleet.pipeline.model.lora import ADAPTER_IN_NAME, LoraFile, adapter_name
from framefleet.pipeline.model.options.offload import modules_of
from framefleet.pipeline.model.sources.leftovers import check_leftovers, check_scales, listed
from framefleet.pipeline.model.sources.network_loading import blank_pipeline
from framefleet.pipeline.model.sources.selection import SAFETENSORS
from framefleet.pipeline.model.sources.verified_folder import alone
from framefleet.pipeline.model.sources.weights import Weights
from framefleet.pipeline.model.specs.spec import PipelineSpec

# Adapters that are not LoRAs, and patterns for the names of their weights.
_OTHER_ADAPTERS = {
    "LoHa": re.compile(r"(^|\.)hada_(w[12]|t[12])"),
    "LoKr": re.compile(r"(^|\.)lokr_(w[12]|t2)"),
    "GLoRA": re.compile(r"\.[ab][12]\.weight$"),
    "OFT": re.compile(r"(^|\.|_)(oft_|boft_)"),
    "IA3": re.compile(r"(\.on_input|ia3_l)$|\.ia3_l\."),
    "VeRA": re.compile(r"(^|\.)vera_"),
    "Control LoRA": re.compile(r"^lora_controlnet$"),
    "a textual inversion": re.compile(r"^(emb_params|clip_[lg]|string_to_param\..*|<[^.]+>)$"),
}
USE_OTHER = "use a LoRA that was made for this model"
CONVERT = "convert it to a plain LoRA, or merge it into a copy of the model"
_INTO_COPY = (
    "put its words into a copy of the model: pipe = DiffusionPipeline.from_pretrained(MODEL); "
    "pipe.load_textual_inversion(FILE, token=WORD); pipe.save_pretrained(FOLDER)"
)
SAVE_WHOLE = (
    "save it in diffusers' or peft's own format, or use another; diffusers converts those of some programs "
    "only if they have all layers"
)
SAVE_PREFIXED = (
    "if it is for this model, rename its weights: in peft their names begin with `base_model.model.`, in "
    "diffusers with the component, e.g. `transformer.`"
)
# Keys of a LoRA's own config that may differ from peft's defaults. With other keys it would do more than add
# to a layer's output, and some name modules that peft imports.
SAID = {
    *("r", "lora_alpha", "lora_dropout", "use_rslora", "use_dora", "lora_bias", "fan_in_fan_out"),
    *("rank_pattern", "alpha_pattern", "target_modules", "exclude_modules", "layers_to_transform"),
    *("alpha", "rank_dropout", "module_dropout", "rank_dropout_scale", "decompose_both", "decompose_factor"),
    *("use_effective_conv2d", "auto_mapping", "base_model_name_or_path", "revision", "peft_type"),
    *("task_type", "inference_mode", "peft_version", "layers_pattern"),
}
_PATTERNS = ("target_modules", "exclude_modules", "layers_pattern", "rank_pattern", "alpha_pattern")
HARMLESS: tuple[Any, ...] = (None, True, False, "gaussian", "none", [], {})
MAX_RANK = 1024  # that a config may have, whatever the weights have
MAX_WILDCARDS = 4  # each further one may multiply the time by the length of a name
_MAX_MESSAGE = 200  # characters of a library's message
# diffusers' converters count from the first block to the last, and no network has this many.
MANY = re.compile(r"\d{6}")


def other_adapter(names: Collection[str]) -> tuple[str, str] | None:
    """Return (what it is, what to do) if the file is another kind of adapter."""
    for kind, pattern in _OTHER_ADAPTERS.items():
        if own := [name for name in names if pattern.search(name)]:
            fix = _INTO_COPY if kind == "a textual inversion" else CONVERT
            return f"it has weights of {kind} ({listed(own)}), which diffusers does not load there", fix
    return None


def told_by_library(error: Exception, names: Collection[str]) -> tuple[str, str]:
    """Return (problem, fix) for an exception of a converter or of peft. names: the file's weights."""
    if other := other_adapter(names):
        return other
    if isinstance(error, KeyError) and error.args:
        wanted = str(error.args[0])[:_MAX_MESSAGE]
        return f"diffusers looks for {wanted} next to {listed(names)}, but it is not there", SAVE_WHOLE
    text = " ".join(str(error).split())
    words = {word.strip(".") for word in re.findall(r"[\w.-]+", text)}
    # Converters remove these from names, and write dots as underscores.
    prefixes = re.compile(r"(diffusion_model\.)?(lora_unet_)?(base_model\.model\.)?")
    if own := {n for n in names if words & {n, n.replace(".", "_"), prefixes.sub("", n, count=1)}}:
        return f"diffusers does not know what {listed(own)} is for", SAVE_WHOLE
    quotation = f" ({text[:_MAX_MESSAGE]})" if text else ""
    return f"diffusers cannot read it{quotation}; it has {listed(names) or 'no weights'}", SAVE_WHOLE


def changes_model(metadata: Mapping[str, Any], rank: int) -> tuple[str, str] | None:
    """Return why a LoRA's own config would change rows that do not use it, or never end.

    rank: the largest of its weights. peft makes layers with any rank that the config says.
    """
    usual = LoraConfig().to_dict()
    for key, value in metadata.items():
        name = key.rpartition(".")[2]
        if name not in SAID and value not in HARMLESS and value != usual.get(name):
            reason = f"it changes the model's own weights ({key} is {shown(value)})"
            return reason, CONVERT
        ranks = [value] if name == "r" else [*value.values()] if name == "rank_pattern" and value else []
        if any(isinstance(number, int | float) and number > max(rank, MAX_RANK) for number in ranks):
            return f"{key} is {shown(value)}, but its weights have a rank of at most {rank}", _AGAIN
        patterns = [value] if isinstance(value, str) else value or ()
        for pattern in map(str, patterns if name in _PATTERNS else ()):
            # A pattern without nested repetition always ends soon.
            if len(re.findall(r"[*+{?]", pattern)) > MAX_WILDCARDS or re.search(r"\)[*+{?]", pattern):
                reason = f"{key} is a pattern that may take too long: {shown(value)}"
                return reason, "list the layers in its config"
    return None


_HALVES = {
    ".lora_A.weight": ".lora_B.weight",
    ".lora_B.weight": ".lora_A.weight",
    ".lora_B.bias": ".lora_B.weight",
}
# Weights that are added: if they are zero, as for all norms in extracted LoRAs, they have no effect.
_ADDED = re.compile(r"\.(diff|diff_b|diff_m|lora_(up|down|A|B)\.(weight|bias))$")
# Names of wrappers that training programs put around a network.
_WRAPPED = re.compile(r"^((base_model\.model|pipe|dit|module|_orig_mod|diffusion_model|transformer)\.)+")
_LEFT_OUT = (
    f"{USE_OTHER}, or merge it into a copy of the model; if its other weights are enough, set "
    "`model.allow_unmatched_weights: true`"
)
_ALPHA = ".alpha"
_AGAIN = "fetch it again, or use another LoRA"
_Refusal = tuple[str, str]  # the reason, and the fix


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where one weight of a converted LoRA belongs."""

    part: str
    key: str  # in there, as peft names it
    layer: nn.Module | None  # None if the model has no such layer
    weight: Tensor

    @property
    def in_words(self) -> str:
        """Return the names of the file's weights, and this weight's if it differs."""
        key = f"{self.part}.{self.key}"
        names = sources_of([self.weight])
        is_same = {name.partition(".")[2] for name in names} <= {self.key}  # `component` may differ
        return key if is_same else f"{listed(names)} ({key})"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Conversion:
    weights: Mapping[str, Any]  # the file's
    read: set[str] = field(default_factory=set)  # the weights that were read as numbers
    places: list[Place] = field(default_factory=list)
    # Alphas that are not multiplied into weights, but passed on.
    alphas: dict[str, Any] = field(default_factory=dict)


def check_loras_fit(
    files: Mapping[str, LoraFile], weights: Weights, spec: PipelineSpec, *, allow_unmatched: bool
) -> None:
    """Raise ModelError for a LoRA that the model cannot take. Does not open the model's weights."""
    blank = blank_pipeline(weights.configs(is_built=True), weights.config_files, weights.components, spec)
    load_loras(blank, files, allow_unmatched=allow_unmatched)


def load_loras(pipe: Any, files: Mapping[str, LoraFile], *, allow_unmatched: bool) -> None:
    """Load every file as an adapter that is switched off. Raises ModelError if one does not fit."""
    if not hasattr(type(pipe), "load_lora_weights"):
        raise ModelError(f"{type(pipe).__name__} takes no LoRAs", "leave `loras:` out")
    for name, file in files.items():
        _load(pipe, name, file, allow_unmatched=allow_unmatched)
    for layer in (layer for network in modules_of(pipe).values() for layer in network.modules()):
        if isinstance(layer, BaseTunerLayer):
            layer.eval()  # it is made in training mode, in which dropout would be on
            layer.set_adapter([])


def _load(pipe: Any, name: str, file: LoraFile, *, allow_unmatched: bool) -> None:
    where = f"loras.{name}: {file.path}"

    def refuse(refusal: _Refusal | None) -> None:
        if refusal:
            raise ModelError(f"{where} does not fit {type(pipe).__name__}: {refusal[0]}", refusal[1])

    conversion = _Conversion(weights=_weights_in(file.path, where))
    names = conversion.weights.keys()
    refuse(None if names else ("it has no weights", USE_OTHER))
    if large := [name for name in names if MANY.search(name)]:
        refuse((f"its layer numbers are higher than in any network: {listed(large)}", USE_OTHER))

    def converted(_: str, convert: Any, *args: Any, **kwargs: Any) -> Any:
        """Check the weights after diffusers has renamed them, and before it changes the model."""

        def trace(spelling: Mapping[str, str]) -> tuple[tuple[Any, ...], list[Place]]:
            conversion.read.clear()
            traced = {
                spelling[key]: Sourced.of(key, weight, conversion.read)
                if isinstance(weight, Tensor)
                else weight
                for key, weight in conversion.weights.items()
            }
            parts = _as_tuple(convert(traced, *args[1:], **kwargs))
            return parts, [*_places(pipe, parts[0], file.lora.component)]

        def fits(spelling: Mapping[str, str]) -> bool:
            try:
                _, places = trace(spelling)
            except Exception:  # a converter may raise anything for names that it does not know
                return False
            return bool(places) and not _misfit(places)

        own, *others = _spellings(names)
        # Prefer the file's own names: diffusers recognizes DiffSynth's MiniMax-H3 by them, and reorders it.
        spelling = own if not others or fits(own) else next(filter(fits, others), own)
        parts, places = trace(spelling)
        conversion.places.extend(places)
        for alphas in filter(None, parts[1:-1]):
            conversion.alphas.update(alphas)
        refuse(_misfit(conversion.places))
        renamed = {spelling[key]: weight for key, weight in conversion.weights.items()}
        result = convert(*args, **kwargs) if spelling is own else convert(renamed, *args[1:], **kwargs)
        ranks = [place.weight.shape[0] for place in conversion.places if ".lora_A." in place.key]
        refuse(changes_model(_as_tuple(result)[-1] or {}, max(ranks, default=0)))
        return result

    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()  # else it warns that a second LoRA lacks the first one
    try:
        with warnings.catch_warnings(), alone(), intercept({name: pipe}, converted, method="lora_state_dict"):
            warnings.filterwarnings("ignore", "Already found a `peft_config`")
            pipe.load_lora_weights(
                str(file.path.parent),
                weight_name=file.path.name,
                adapter_name=adapter_name(name),
                use_safetensors=True if file.path.suffix == SAFETENSORS else None,
                local_files_only=True,
                **({"load_into_transformer_2": True} if file.lora.component == "transformer_2" else {}),
            )
    except FramefleetError:
        raise
    except Exception as error:  # a converter or peft may raise anything for files of other programs
        check_scales(where, names)
        refuse(told_by_library(error, names))
    finally:
        transformers_logging.set_verbosity(level)
    if not conversion.places:
        useless = f"diffusers uses none of its weights: {listed(names)}"
        refuse(other_adapter(names) or (useless, USE_OTHER))
    placed, lacking = _compare(pipe, conversion.places, adapter_name(name))
    if conversion.alphas:
        placed |= {*_alphas_in_force(pipe, conversion, adapter_name(name))}
        conversion.read.difference_update(key for key in names if key.endswith(_ALPHA))
    # If one number of a larger weight was read, that was to see whether it is zero: diffusers then drops it.
    alphas = {key for key in conversion.read if conversion.weights[key].numel() == 1}
    unused = {key for key in names - placed - alphas if not _adds_nothing(key, conversion.weights[key])}
    if not allow_unmatched:
        refuse(other_adapter(unused))
    check_leftovers(where, lacking=lacking, fix=_AGAIN)
    check_leftovers(where, unused=unused, fix=_LEFT_OUT, allowed=allow_unmatched)


def _spellings(names: Collection[str]) -> Iterator[dict[str, str]]:
    """Yield names for each weight: the file's; then, if peft's adapter is in these, names without it."""
    yield {name: name for name in names}
    plain = {name: ADAPTER_IN_NAME.sub(r"\1", name) for name in names}
    if {*plain.values()} != {*names}:
        yield plain
        for part in ("diffusion_model", "transformer", "unet"):  # names of publishers, or of diffusers
            yield {name: f"{part}.{_WRAPPED.sub('', bare)}" for name, bare in plain.items()}


def _weights_in(path: Path, where: str) -> dict[str, Any]:
    """Return the file's weights by name; {} for a pickle of something else."""
    try:
        if path.suffix == SAFETENSORS:
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # for broken files, pickle and zipfile raise errors of nearly any class
        raise ModelError(f"{where} cannot be read: {type(error).__name__}", "fetch it again") from error
    return {str(key): value for key, value in content.items()} if isinstance(content, Mapping) else {}


def _adds_nothing(key: str, weight: Any) -> bool:
    return bool(_ADDED.search(key)) and isinstance(weight, Tensor) and not weight.float().count_nonzero()


def _as_tuple(result: Any) -> tuple[Any, ...]:
    """Return the result of `lora_state_dict`: weights, in some pipelines alphas, the file's config."""
    return result if isinstance(result, tuple) else (result, None)


def _places(pipe: Any, weights: Mapping[str, Tensor], component: str | None) -> Iterator[Place]:
    for part in dict.fromkeys(key.partition(".")[0] for key in weights):
        own = {key.removeprefix(f"{part}."): w for key, w in weights.items() if key.startswith(f"{part}.")}
        network = getattr(pipe, component or part, None)
        modules = network.named_modules() if isinstance(network, nn.Module) else ()
        layers = {name: module for name, module in modules if name}
        # The names that diffusers passes to peft: a copy of what `load_lora_into_text_encoder` and
        # `load_lora_adapter` do (diffusers 0.42), which do not return them.
        if isinstance(network, PreTrainedModel):
            own = convert_state_dict_to_peft(convert_state_dict_to_diffusers(own))
            if not hasattr(network, "text_model"):
                own = {key.removeprefix("text_model."): weight for key, weight in own.items()}
        elif not any(".lora_A" in key or ".lokr_" in key for key in own):
            own = convert_unet_state_dict_to_peft(own)
        for key, weight in own.items():
            yield Place(part=component or part, key=key, layer=layers.get(_layer_of(key)), weight=weight)


def _layer_of(key: str) -> str:
    return key.partition(".lora_")[0].partition(".lokr_")[0]


def _misfit(places: Collection[Place]) -> _Refusal | None:
    if homeless := [place for place in places if place.layer is None]:
        other = other_adapter(sources_of(place.weight for place in homeless))
        is_prefixed = all(place.key.startswith("model.") for place in homeless)
        fix = SAVE_PREFIXED if is_prefixed else USE_OTHER
        return other or (f"it has no layer for {listed(place.in_words for place in homeless)}", fix)
    keys = {(place.part, place.key) for place in places}
    for place in places:
        # The width of the layer that the weight is made for, and the width of the model's layer.
        width = own = None
        base = getattr(place.layer, "base_layer", place.layer)  # inside the layer of an earlier adapter
        if place.key.endswith(".lora_A.weight"):
            own = getattr(base, "in_features", getattr(base, "in_channels", None))
            width = place.weight.shape[1]
        elif place.key.endswith((".lora_B.weight", ".lora_B.bias")):
            own = getattr(base, "out_features", getattr(base, "out_channels", None))
            width = place.weight.shape[0]
        half = next((half for half in _HALVES if place.key.endswith(half)), None)
        if width != own:
            return (f"{place.in_words} is made for a layer {width} wide, but the model's is {own}", USE_OTHER)
        if ".lora_" not in place.key and ".lokr_" not in place.key:
            return f"{place.in_words} is not a weight of a LoRA", USE_OTHER
        if half and (place.part, place.key.removesuffix(half) + _HALVES[half]) not in keys:
            return f"{place.in_words} has no counterpart in the file", _AGAIN
    return None


def _compare(pipe: Any, places: Collection[Place], adapter: str) -> tuple[set[str], set[str]]:
    expected = {f"{place.part}.{_plain(place.key)}": place.weight for place in places}
    layers = {f"{place.part}.{_layer_of(place.key)}": place for place in places}
    # The name of each weight of the adapter, as in files, and the name of its layer.
    filled: dict[str, str] = {}
    for part, network in modules_of(pipe).items():
        for name, layer in network.named_modules():
            for key, _ in layer.named_parameters() if isinstance(layer, BaseTunerLayer) else ():
                pieces = key.split(".")
                if adapter in pieces and not key.startswith("base_layer."):
                    pieces.remove(adapter)
                    filled[f"{part}.{name}.{_plain('.'.join(pieces))}"] = f"{part}.{name}"
    lacking = {
        f"{key}, next to {layers[place].in_words}"
        for key, place in filled.items()
        if place in layers and key not in expected
    }
    return sources_of(weight for key, weight in expected.items() if key in filled), lacking


def _alphas_in_force(pipe: Any, conversion: _Conversion, adapter: str) -> Iterator[str]:
    """Yield the alphas by which their layers are really scaled; not all alphas are used.

    diffusers passes them on under its own names, and peft has another one for some layers (CLIP's `fc1`).
    """
    for place in conversion.places:
        for name in sources_of([place.weight]) if place.key.endswith(".lora_A.weight") else ():
            layer_name = re.split(r"\.(lora|processor)[._]", name)[0]  # as the file names it
            alpha = conversion.weights.get(key := f"{layer_name}{_ALPHA}")
            layer = getattr(pipe, place.part).get_submodule(_layer_of(place.key))
            rank = place.weight.shape[0]
            if alpha is not None and math.isclose(layer.scaling[adapter], float(alpha) / rank):
                yield key


def _plain(key: str) -> str:
    """Return a name without the `.weight` that peft's files leave out of some."""
    return key.removesuffix(".weight") if "lora_magnitude_vector" in key else key


_READ = (Tensor.item, Tensor.tolist, Tensor.__float__, Tensor.__int__)
_LIKE = (torch.zeros_like, torch.ones_like, torch.empty_like)  # use a tensor's shape, not its values


class Sourced(Tensor):
    """A tensor that knows the names of the weights that it comes from."""

    names: frozenset[str]
    read: set[str]

    @classmethod
    def of(cls, name: str, tensor: Tensor, read: set[str]) -> Sourced:
        """read: collects the names of weights that are read as numbers."""
        return _with_names(tensor.as_subclass(cls), frozenset([name]), read)

    @classmethod
    def __torch_function__(
        cls, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = super().__torch_function__(function, types, args, kwargs or {})  # type: ignore[no-untyped-call]
        sources = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Sourced)]
        names = frozenset[str]()
        if function not in _LIKE:
            names = names.union(*(getattr(source, "names", ()) for source in sources))
        read = next((source.read for source in sources if hasattr(source, "read")), set[str]())
        if function in _READ:
            read |= names
        # A call that changes a tensor in place changes its first argument, and may not return it.
        for leaf in tree_leaves((result, args[:1] if function is Tensor.__setitem__ else ())):
            if isinstance(leaf, Sourced):
                _with_names(leaf, names, read)
        return result


def _with_names(tensor: Sourced, names: frozenset[str], read: set[str]) -> Sourced:
    tensor.names, tensor.read = names, read
    return tensor


def sources_of(weights: Iterable[Any]) -> set[str]:
    """Return the names of the weights that these come from."""
    return {name for weight in weights if isinstance(weight, Sourced) for name in weight.names}
