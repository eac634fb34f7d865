"""Recipes that leave something behind for all later rows of their process, as scripts do at their top."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import diffusers
import torch
from diffusers import UniPCMultistepScheduler as Scheduler
from diffusers.video_processor import VideoProcessor
from torch import nn

import framefleet
from framefleet import Request
from framefleet.pipeline.recipes.catalog import generate


def stronger_steps(pipe: Any, request: Request) -> Any:
    """Patch the class of the row's scheduler, once."""
    if not hasattr(Scheduler, "plain_step"):
        Scheduler.plain_step = plain = Scheduler.step

        def step(self: Any, model_output: Any, *args: Any, **kwargs: Any) -> Any:
            return plain(self, model_output * 1.2, *args, **kwargs)

        Scheduler.step = step
    return generate(pipe, request)


def seamless(pipe: Any, request: Request) -> Any:
    """Have the decoder pad in circles, and leave it so."""
    for module in pipe.vae.modules():
        if isinstance(module, nn.Conv2d):
            module.padding_mode = "circular"
    return generate(pipe, request)


@framefleet.recipe(batched=True)
def harmless(pipe: Any, request: Request) -> Any:
    return generate(pipe, request)


def drifting(pipe: Any, request: Request) -> Any:
    """Render each row a little otherwise than the last one of this process: nobody watches libraries."""
    diffusers.drift = getattr(diffusers, "drift", 1.0) * 0.9
    output = generate(pipe, request)
    output.frames = output.frames * diffusers.drift
    return output


def mirrored(pipe: Any, request: Request) -> Any:
    """Mirror the first kernels through `.data`: no sum of their bits changes, and the next row undoes it."""
    weight = pipe.transformer.patch_embedding.weight
    weight.data = weight.data.flip(-1).contiguous()
    return generate(pipe, request)


def louder_text(pipe: Any, request: Request) -> Any:
    """Change an attribute of the text encoder's layers, and leave it so."""
    for block in pipe.text_encoder.encoder.block:
        block.layer[1].layer_norm.variance_epsilon += 1e6
    return generate(pipe, request)


@dataclass(slots=True)
class _Settings:
    gain: float = 1.0


_settings = _Settings()


def slotted(pipe: Any, request: Request) -> Any:
    """Keep a gain in slots, and a count in a global that the first row makes."""
    global num_rows
    num_rows = globals().get("num_rows", 0) + 1
    _settings.gain *= 1 - 0.1 * num_rows
    output = generate(pipe, request)
    output.frames = output.frames * _settings.gain
    return output


def patched_torch(pipe: Any, request: Request) -> Any:
    """Patch a function of torch, as each row does on top of the last one."""
    plain = nn.functional.scaled_dot_product_attention

    def attention(query: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        return plain(query * 1.5, *args, **kwargs)

    nn.functional.scaled_dot_product_attention = attention
    return generate(pipe, request)


def modes(pipe: Any, request: Request) -> Any:
    """Leave dtype, gradients, threads, precision and seed of torch otherwise, and a processor's class."""
    output, plain = generate(pipe, request), VideoProcessor.postprocess_video

    def darker(self: Any, *args: Any, **kwargs: Any) -> Any:
        return plain(self, *args, **kwargs) * 0.5

    VideoProcessor.postprocess_video = darker
    torch.set_default_dtype(torch.float64)
    torch.set_grad_enabled(True)
    torch.set_num_threads(2)
    torch.backends.fp32_precision = "tf32"
    torch.manual_seed(0)
    output.frames = output.frames * 0.9
    return output
