"""Recipes that change weights, parameters, submodules and settings of networks."""

from __future__ import annotations

import copy
from typing import Any

import torch

from framefleet.pipeline.recipes.catalog import generate
from framefleet.pipeline.request import Request


def encoder_by_data(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    if not odd:
        return generate(pipe, request)
    weight = _text_model(pipe).final_layer_norm.weight
    original = weight.data
    weight.data = original * (1 + odd)
    try:
        return generate(pipe, request)
    finally:
        weight.data = original


def encoder_in_place_by_data(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    """Change the weight through `.data`, which leaves the tensor's version as it was."""
    if not odd:
        return generate(pipe, request)
    weight = _text_model(pipe).final_layer_norm.weight
    original = weight.data.clone()
    weight.data.mul_(1 + odd)
    try:
        return generate(pipe, request)
    finally:
        weight.data.copy_(original)


def encoder_without_gradients(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    if not odd:
        return generate(pipe, request)
    weight = _text_model(pipe).embeddings.token_embedding.weight
    original = weight.detach().clone()
    with torch.no_grad():
        weight.mul_(1 + odd)
    try:
        return generate(pipe, request)
    finally:
        with torch.no_grad():
            weight.copy_(original)


def encoder_left(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    if odd:
        _text_model(pipe).final_layer_norm.weight.data.mul_(1 + odd)
    return generate(pipe, request)


def denoiser_for_the_call(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    if not odd:
        return generate(pipe, request)
    weight = pipe.unet.conv_in.weight
    original = weight.detach().clone()
    weight.data.mul_(1 + odd)
    try:
        return generate(pipe, request)
    finally:
        weight.data.copy_(original)


def denoiser_on_the_way(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    """Change a weight in a callback, after the first step."""
    weight = pipe.unet.conv_out.weight
    original = weight.detach().clone()

    def change(pipe: Any, step: int, timestep: Any, given: dict[str, Any]) -> dict[str, Any]:
        if odd and step == 0:
            weight.data.mul_(1 + odd)
        return given

    try:
        return pipe(
            **request.arguments, generator=request.generator(), output_type="np", callback_on_step_end=change
        )
    finally:
        weight.data.copy_(original)


def decoder_left(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    if odd:
        pipe.vae.decoder.conv_in.weight.data.mul_(1 + odd)
    return generate(pipe, request)


def submodule_replaced(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    if not odd:
        return generate(pipe, request)
    original = pipe.unet.conv_in
    pipe.unet.conv_in = copy.deepcopy(original)
    pipe.unet.conv_in.weight.data.mul_(1 + odd)
    try:
        return generate(pipe, request)
    finally:
        pipe.unet.conv_in = original


def parameter_replaced(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    if not odd:
        return generate(pipe, request)
    original = pipe.unet.conv_out.weight
    pipe.unet.conv_out.weight = torch.nn.Parameter(original.detach() * (1 + odd))
    try:
        return generate(pipe, request)
    finally:
        pipe.unet.conv_out.weight = original


def own_denoiser(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    """Change a copy of the network, and leave the copy in the row's own pipeline."""
    if odd:
        pipe.unet = copy.deepcopy(pipe.unet)
        pipe.unet.conv_in.weight.data.mul_(1 + odd)
    return generate(pipe, request)


def scale_in_the_config(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    original = pipe.vae.config.scaling_factor
    pipe.vae.register_to_config(scaling_factor=original * (1 + odd))
    try:
        return generate(pipe, request)
    finally:
        pipe.vae.register_to_config(scaling_factor=original)


def dtype_for_the_call(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    if not odd:
        return generate(pipe, request)
    pipe.to(torch.bfloat16)
    try:
        return generate(pipe, request)
    finally:
        pipe.to(torch.float32)


def freeu(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    if not odd:
        return generate(pipe, request)
    pipe.enable_freeu(s1=1 - odd, s2=0.5, b1=1 + odd, b2=1.4)
    try:
        return generate(pipe, request)
    finally:
        pipe.disable_freeu()


def blocks_skipped(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    if not odd:
        return generate(pipe, request)
    blocks = pipe.transformer.blocks
    pipe.transformer.blocks = torch.nn.ModuleList(list(blocks)[1:])
    try:
        return generate(pipe, request)
    finally:
        pipe.transformer.blocks = blocks


def _text_model(pipe: Any) -> Any:
    return getattr(pipe.text_encoder, "text_model", pipe.text_encoder)  # transformers 5 has one level less
