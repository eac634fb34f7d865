"""Recipes that put hooks on modules for their call."""

from __future__ import annotations

from typing import Any

import torch

from framefleet.pipeline.recipes.catalog import generate
from framefleet.pipeline.request import Request


def on_a_layer_of_the_encoder(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    return _hooked(pipe, request, _text_model(pipe).encoder.layers[0], odd)


def on_the_second_encoder(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    return _hooked(pipe, request, pipe.text_encoder_2.text_model.encoder.layers[-2], odd)


def on_a_block_of_the_denoiser(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    return _hooked(pipe, request, pipe.unet.mid_block, odd)


def on_a_block_of_the_transformer(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    return _hooked(pipe, request, pipe.transformer.blocks[0], odd)


def on_the_decoder(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    return _hooked(pipe, request, pipe.vae.decoder.mid_block, odd)


def on_all_modules(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    if not odd:
        return generate(pipe, request)

    def scale(module: Any, given: Any, found: Any) -> Any:
        return found * (1 + odd) if isinstance(module, torch.nn.GroupNorm) else None

    hook = torch.nn.modules.module.register_module_forward_hook(scale)
    try:
        return generate(pipe, request)
    finally:
        hook.remove()


def left_on_the_encoder(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    if odd:
        _text_model(pipe).final_layer_norm.register_forward_hook(
            lambda module, given, found: found * (1 + odd)
        )
    return generate(pipe, request)


def _hooked(pipe: Any, request: Request, module: Any, odd: float) -> Any:
    if not odd:
        return generate(pipe, request)

    def scale(module: Any, given: Any, found: Any) -> Any:
        return (found[0] * (1 + odd), *found[1:]) if isinstance(found, tuple) else found * (1 + odd)

    hook = module.register_forward_hook(scale)
    try:
        return generate(pipe, request)
    finally:
        hook.remove()


def _text_model(pipe: Any) -> Any:
    return getattr(pipe.text_encoder, "text_model", pipe.text_encoder)  # transformers 5 has one level less
