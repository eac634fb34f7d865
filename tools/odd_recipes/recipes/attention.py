"""Recipes that set attention processors, their attributes and the backend."""

from __future__ import annotations

from typing import Any

from diffusers.models.attention_processor import Attention, AttnProcessor2_0

from framefleet.pipeline.recipes.catalog import generate
from framefleet.pipeline.request import Request


class Scaled(AttnProcessor2_0):
    """A processor with an attribute that rows set, as those of IP-Adapters have."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = 0.0

    def __call__(self, attn: Any, hidden_states: Any, *arguments: Any, **named: Any) -> Any:
        return super().__call__(attn, hidden_states, *arguments, **named) * (1 + self.scale)


def processor_set(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    if not odd:
        return generate(pipe, request)
    originals = dict(pipe.unet.attn_processors)
    mine = Scaled()
    mine.scale = odd
    pipe.unet.set_attn_processor(mine)
    try:
        return generate(pipe, request)
    finally:
        pipe.unet.set_attn_processor(originals)


def scale_of_processors(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    """Install processors once and leave them; each row sets their scale."""
    if not any(isinstance(each, Scaled) for each in pipe.unet.attn_processors.values()):
        pipe.unet.set_attn_processor({name: Scaled() for name in pipe.unet.attn_processors})
    for processor in pipe.unet.attn_processors.values():
        processor.scale = odd
    return generate(pipe, request)


def attribute_of_attention(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    layers = [module for module in pipe.unet.modules() if isinstance(module, Attention)]
    for layer in layers:
        layer.rescale_output_factor = 1 + odd
    try:
        return generate(pipe, request)
    finally:
        for layer in layers:
            layer.rescale_output_factor = 1.0


def backend(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    if not odd:
        return generate(pipe, request)
    pipe.transformer.set_attention_backend("_native_math")
    try:
        return generate(pipe, request)
    finally:
        pipe.transformer.reset_attention_backend()
