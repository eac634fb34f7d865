"""Whether a model can do what its options ask: decided from configs and classes, before any weight is read.

The denoisers and the autoencoder are built from their configs, without memory for their weights: some of what
decides is set in constructors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from framefleet.pipeline.errors import ModelError
from framefleet.pipeline.model.options.attention import AUTO, check_attention, check_works
from framefleet.pipeline.model.options.offload import check_offload
from framefleet.pipeline.model.options.quantization import check_quantization
from framefleet.pipeline.model.options.schema import GroupOffload, Options, Quanto
from framefleet.pipeline.model.options.step_cache import check_cache
from framefleet.pipeline.model.options.tuning import denoisers_in
from framefleet.pipeline.model.sources.components import Component, class_of
from framefleet.pipeline.model.sources.packing import method_of
from framefleet.pipeline.model.sources.verified_folder import sealed
from framefleet.pipeline.model.specs.spec import PipelineSpec

_HOOKS = "torch cannot compile blocks that diffusers put hooks on"
# What was tried and fails with diffusers 0.42 and torch 2.13.
_APART = (
    ("compile", "cache", _HOOKS),
    ("compile", "layerwise_casting", _HOOKS),
    ("compile", "offload group", _HOOKS),
    ("quantization", "layerwise_casting", "quantised weights have a type of their own"),
    ("quantization", "offload.disk", "quantised weights are not written to files"),
    ("matmul triton", "compile", "a compiled block has products of its own"),
    ("matmul triton", "quantization", "its kernel takes plain weights"),
    ("matmul triton", "layerwise_casting", "its kernel takes weights of the dtype of their inputs"),
    ("fuse_qkv", "quantization", "diffusers joins plain weights only"),
    ("quantization by quanto", "offload group", "diffusers moves groups of torchao's weights only"),
)


def check_options(
    options: Options,
    spec: PipelineSpec,
    *,
    folder: Path,
    components: Sequence[Component],
    device: str | None = None,
) -> None:
    """Raise ModelError for an option that this model, or this device, cannot do.

    folder: holds the configs. device: None where it is not known yet.
    """
    if options == Options():
        return
    _check_together(options)
    by_name = {component.name: component for component in components}
    denoisers = {name: _without_weights(by_name[name], folder) for name in denoisers_in(by_name)}
    if options.attention:
        check_attention(options.attention, denoisers)
        if device == "cpu" and options.attention != AUTO:
            check_works(options.attention, device=device, dtype=torch.float32)
    if options.cache:
        check_cache(options.cache, denoisers, pipeline_class=spec.pipeline_class)
    for module in denoisers.values() if options.compile else ():
        if not getattr(module, "_repeated_blocks", None):
            raise ModelError(
                f"compile: diffusers names no regions of {type(module).__name__} to compile",
                "leave it out, or set `compile: false` together with `speed`",
            )
    for module in denoisers.values() if options.fuse_qkv else ():
        if not hasattr(module, "fuse_qkv_projections"):
            raise ModelError(
                f"fuse_qkv: {type(module).__name__} cannot join query, key and value", "leave it out"
            )
    if options.matmul == "triton" and device is not None:
        if not device.startswith("cuda"):
            raise ModelError(f"matmul 'triton' needs a GPU, and the device is {device}", "leave it out")
        if find_spec("triton") is None:
            raise ModelError("matmul 'triton' needs Triton", "pip install triton, or use no_split_k")
    if options.channels_last:
        vae = [_without_weights(by_name["vae"], folder)] if "vae" in by_name else []
        _check_layout([*denoisers.values(), *vae])
    if options.quantization:
        check_quantization(options.quantization, device=device)
        _check_components(options.quantization.components or [], by_name)
        for name in options.quantization.components or denoisers:
            if method := method_of(folder, name):
                raise ModelError(
                    f"quantization: the weights of {name} are packed already, by {method}",
                    "leave `model.quantization` out, or use the model's plain weights",
                )
    if options.offload:
        check_offload(options.offload, denoisers, device=device)
    for is_set, name in ((options.vae_tiling, "tiling"), (options.vae_slicing, "slicing")):
        if is_set:
            _check_vae(name, by_name.get("vae"), folder)


def check_beside_loras(options: Options) -> None:
    """Raise ModelError for an option with which LoRAs would be left out without a word."""
    if options.fuse_qkv:
        raise ModelError(
            "fuse_qkv does not go together with LoRAs: they change the weights that it has joined",
            "leave one of them out",
        )


def _check_together(options: Options) -> None:
    group = options.offload if isinstance(options.offload, GroupOffload) else None
    used = {
        "compile": options.compile,
        "fuse_qkv": options.fuse_qkv,
        "matmul triton": options.matmul == "triton",
        "cache": options.cache,
        "layerwise_casting": options.layerwise_casting,
        "quantization": options.quantization,
        "quantization by quanto": isinstance(options.quantization, Quanto),
        "offload group": group,
        "offload.disk": group and group.disk,
    }
    for one, other, reason in _APART:
        if used[one] and used[other]:
            raise ModelError(f"{one} does not go together with {other}: {reason}", "leave one of them out")


def _check_layout(modules: Sequence[Any]) -> None:
    """Raise ModelError unless there are 2-d convolutions, and no others: torch lays out all or none."""
    for module in modules:
        if any(weight.dim() == 5 for weight in module.parameters()):
            raise ModelError(f"channels_last: {type(module).__name__} convolves over time", "leave it out")
    if not any(weight.dim() == 4 for module in modules for weight in module.parameters()):
        raise ModelError("channels_last: the model has no convolutions", "leave it out")


def _check_components(names: Sequence[str], known: Mapping[str, Component]) -> None:
    usable = [name for name, component in known.items() if component.has_weights]
    for name in names:
        if name not in usable:
            raise ModelError(
                f"quantization.components names {name!r}, which has no weights in this model",
                f"use some of {', '.join(usable)}",
            )


def _check_vae(what: str, vae: Component | None, folder: Path) -> None:
    if vae is None:
        raise ModelError(f"vae_{what}: the model has no autoencoder `vae`", "leave it out")
    if not hasattr(_without_weights(vae, folder), f"use_{what}"):
        raise ModelError(f"vae_{what}: {vae.class_name} has no {what}", "leave it out")


def _without_weights(component: Component, folder: Path) -> Any:
    made = class_of(component.library, component.class_name)
    with sealed(folder, [f"{component.name}/config.json"]) as place, torch.device("meta"):
        return made.from_config(made.load_config(place, subfolder=component.name))
