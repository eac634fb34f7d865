"""Recipes that fuse, load, switch and scale LoRAs or textual inversions themselves."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from framefleet.pipeline.recipes.catalog import generate
from framefleet.pipeline.request import Request

FILES = "ODD_RECIPES_FILES"  # the variable that names the folder of LoRAs and embeddings


def weight_changed_on_the_way(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    def change(pipe: Any, step: int, timestep: Any, given: dict[str, Any]) -> dict[str, Any]:
        if odd and step == 0:
            pipe.set_adapters(_named(pipe, "style"), [odd])
        return given

    return pipe(
        **request.arguments, generator=request.generator(), output_type="np", callback_on_step_end=change
    )


def scaled(pipe: Any, request: Request, *, scale: float = 1.0) -> Any:
    """Scale the row's LoRAs for one call, as diffusers documents it."""
    return pipe(
        **request.arguments,
        generator=request.generator(),
        output_type="np",
        cross_attention_kwargs={"scale": scale},
    )


def weight_set_before(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    if odd:
        pipe.set_adapters(_named(pipe, "style") + _named(pipe, "detail"), [odd, 1.0])
    return generate(pipe, request)


def fused_and_left(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    if odd:
        pipe.fuse_lora(adapter_names=_named(pipe, "style"), lora_scale=odd)
    return generate(pipe, request)


def fused_and_unfused(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    if not odd:
        return generate(pipe, request)
    pipe.fuse_lora(adapter_names=_named(pipe, "style"), lora_scale=odd)
    try:
        return generate(pipe, request)
    finally:
        pipe.unfuse_lora()


def loaded_and_unloaded(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    if not odd:
        return generate(pipe, request)
    pipe.load_lora_weights(os.environ[FILES], weight_name="detail.safetensors", adapter_name="mine")
    pipe.set_adapters(["mine"], [odd])
    try:
        return generate(pipe, request)
    finally:
        pipe.unload_lora_weights()


def switched_off(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    if odd:
        pipe.disable_lora()
    return generate(pipe, request)


def textual_inversion(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    """Give one token another embedding in each row: equal token ids, unequal embeddings."""
    if not odd:
        return generate(pipe, request)
    import torch
    from safetensors.torch import load_file

    (vector,) = load_file(Path(os.environ[FILES], "thing.safetensors")).values()
    pipe.load_textual_inversion({"<thing>": torch.as_tensor(vector * odd)}, token="<thing>")
    try:
        return pipe(
            **{**request.arguments, "prompt": request.arguments["prompt"] + " <thing>"},
            generator=request.generator(),
            output_type="np",
        )
    finally:
        pipe.unload_textual_inversion()


def _named(pipe: Any, name: str) -> list[str]:
    return [adapter for adapter in pipe.get_list_adapters()["unet"] if adapter.endswith(name)]
