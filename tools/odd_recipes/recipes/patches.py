"""Recipes that patch classes, functions and methods for their call, as many published methods do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler
from diffusers.models.resnet import ResnetBlock2D
from diffusers.pipelines.stable_diffusion import pipeline_stable_diffusion

from framefleet.pipeline.recipes.catalog import generate
from framefleet.pipeline.request import Request


def scheduler_class(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    if not odd:
        return generate(pipe, request)
    original = DDIMScheduler.step

    def mine(self: Any, model_output: Any, *arguments: Any, **named: Any) -> Any:
        return original(self, model_output * (1 + odd), *arguments, **named)

    DDIMScheduler.step = mine
    try:
        return generate(pipe, request)
    finally:
        DDIMScheduler.step = original


def scheduler_class_of_video(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    """Patch the class of whichever scheduler a video pipeline has."""
    if not odd:
        return generate(pipe, request)
    kind = type(pipe.scheduler)
    assert kind in (UniPCMultistepScheduler, FlowMatchEulerDiscreteScheduler)
    original = kind.step

    def mine(self: Any, model_output: Any, *arguments: Any, **named: Any) -> Any:
        return original(self, model_output * (1 + odd), *arguments, **named)

    with mock.patch.object(kind, "step", mine):
        return generate(pipe, request)


def network_class(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    if not odd:
        return generate(pipe, request)
    original = ResnetBlock2D.forward

    def mine(self: Any, *arguments: Any, **named: Any) -> Any:
        return original(self, *arguments, **named) * (1 + odd)

    ResnetBlock2D.forward = mine
    try:
        return generate(pipe, request)
    finally:
        ResnetBlock2D.forward = original


def function_of_torch(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    if not odd:
        return generate(pipe, request)
    original = torch.nn.functional.scaled_dot_product_attention

    def mine(query: Any, *arguments: Any, **named: Any) -> Any:
        return original(query * (1 + odd), *arguments, **named)

    torch.nn.functional.scaled_dot_product_attention = mine
    try:
        return generate(pipe, request)
    finally:
        torch.nn.functional.scaled_dot_product_attention = original


def function_of_diffusers(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    if not odd:
        return generate(pipe, request)
    original = pipeline_stable_diffusion.retrieve_timesteps

    def mine(scheduler: Any, num_inference_steps: int, *arguments: Any, **named: Any) -> Any:
        return original(scheduler, num_inference_steps + 1, *arguments, **named)

    pipeline_stable_diffusion.retrieve_timesteps = mine
    try:
        return generate(pipe, request)
    finally:
        pipeline_stable_diffusion.retrieve_timesteps = original


def class_left_patched(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    if odd:
        original = DDIMScheduler.step

        def mine(self: Any, model_output: Any, *arguments: Any, **named: Any) -> Any:
            return original(self, model_output * (1 + odd), *arguments, **named)

        DDIMScheduler.step = mine
    return generate(pipe, request)


def pipeline_class(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    if not odd:
        return generate(pipe, request)
    original = type(pipe).encode_prompt

    def mine(self: Any, *arguments: Any, **named: Any) -> Any:
        return [each if each is None else each * (1 + odd) for each in original(self, *arguments, **named)]

    with mock.patch.object(type(pipe), "encode_prompt", mine):
        return generate(pipe, request)


def forward_of_the_denoiser(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    """Replace `forward` of the network object for the call, as block caches do."""
    if not odd:
        return generate(pipe, request)
    original = pipe.unet.forward

    def mine(*arguments: Any, **named: Any) -> Any:
        return tuple(each * (1 + odd) for each in original(*arguments, **named))

    with mock.patch.object(pipe.unet, "forward", mine):
        return generate(pipe, request)


def decode_of_the_autoencoder(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    if not odd:
        return generate(pipe, request)
    original = pipe.vae.decode

    def mine(latents: Any, *arguments: Any, **named: Any) -> Any:
        return original(latents * (1 + odd), *arguments, **named)

    with mock.patch.object(pipe.vae, "decode", mine):
        return generate(pipe, request)


def step_of_its_scheduler(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    """Replace `step` of the row's own scheduler and leave it so."""
    original = pipe.scheduler.step

    def mine(model_output: Any, *arguments: Any, **named: Any) -> Any:
        return original(model_output * (1 + odd), *arguments, **named)

    pipe.scheduler.step = mine
    return generate(pipe, request)


class _Sharper(torch.overrides.TorchFunctionMode):
    def __init__(self, odd: float) -> None:
        super().__init__()
        self._odd = odd

    def __torch_function__(self, function: Any, types: Any, given: Any = (), named: Any = None) -> Any:
        found = function(*given, **(named or {}))
        return found * (1 + self._odd) if function is torch.nn.functional.silu else found


@contextmanager
def _sharper(odd: float) -> Iterator[None]:
    with _Sharper(odd):
        yield


def functions_of_torch_by_a_mode(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    if not odd:
        return generate(pipe, request)
    with _sharper(odd):
        return generate(pipe, request)
