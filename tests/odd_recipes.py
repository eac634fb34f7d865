"""Recipes that change what rows share for their call, as many published methods do, and put it back.

`recipe: tests.odd_recipes:scheduler_class`, of Stable Diffusion. A row's `odd` says how much; 0: nothing.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any
from unittest import mock

import torch
from diffusers import DDIMScheduler
from diffusers.models.attention_processor import AttnProcessor2_0
from torch.nn import functional

from framefleet.pipeline.recipes.catalog import generate
from framefleet.pipeline.request import Request

_Recipe = Callable[..., Any]
ALONE: dict[str, _Recipe] = {}  # by name: those that rows cannot share forwards with


def _changing(change: Callable[[Any, float], Iterator[None]]) -> _Recipe:
    """Return the recipe that calls the pipeline while a change lasts."""
    changed = contextmanager(change)

    def recipe(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
        lasts: AbstractContextManager[None] = changed(pipe, odd) if odd else nullcontext()
        with lasts:
            return generate(pipe, request)

    recipe.__name__ = recipe.__qualname__ = change.__name__
    ALONE[change.__name__] = recipe
    return recipe


def _stronger(function: Callable[..., Any], odd: float) -> Callable[..., Any]:
    """Return a function whose result is larger."""

    def stronger(*arguments: Any, **named: Any) -> Any:
        result = function(*arguments, **named)
        return tuple(one * (1 + odd) for one in result) if isinstance(result, tuple) else result * (1 + odd)

    return stronger


@_changing
def scheduler_class(pipe: Any, odd: float) -> Iterator[None]:
    plain = DDIMScheduler.step

    def step(self: Any, model_output: Any, *arguments: Any, **named: Any) -> Any:
        return plain(self, model_output * (1 + odd), *arguments, **named)

    with mock.patch.object(DDIMScheduler, "step", step):
        yield


@_changing
def function_of_torch(pipe: Any, odd: float) -> Iterator[None]:
    name = "scaled_dot_product_attention"
    with mock.patch.object(functional, name, _stronger(getattr(functional, name), odd)):
        yield


@_changing
def functions_of_torch_by_a_mode(pipe: Any, odd: float) -> Iterator[None]:
    class Sharper(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function: Any, types: Any, given: Any = (), named: Any = None) -> Any:
            result = function(*given, **(named or {}))
            return result * (1 + odd) if function is functional.silu else result

    with Sharper():
        yield


@_changing
def forward_of_the_denoiser(pipe: Any, odd: float) -> Iterator[None]:
    with mock.patch.object(pipe.unet, "forward", _stronger(pipe.unet.forward, odd)):
        yield


@_changing
def decode_of_the_autoencoder(pipe: Any, odd: float) -> Iterator[None]:
    with mock.patch.object(pipe.vae, "decode", _stronger(pipe.vae.decode, odd)):
        yield


@_changing
def hook_on_a_layer_of_the_encoder(pipe: Any, odd: float) -> Iterator[None]:
    layer = getattr(pipe.text_encoder, "text_model", pipe.text_encoder).final_layer_norm
    hook = layer.register_forward_hook(lambda module, given, result: result * (1 + odd))
    yield
    hook.remove()


@_changing
def weight_by_data(pipe: Any, odd: float) -> Iterator[None]:
    """Change it through `.data`, which leaves the tensor's version as it was."""
    weight = getattr(pipe.text_encoder, "text_model", pipe.text_encoder).final_layer_norm.weight
    before = weight.data.clone()
    weight.data.mul_(1 + odd)
    yield
    weight.data.copy_(before)


@_changing
def submodule_replaced(pipe: Any, odd: float) -> Iterator[None]:
    before, pipe.unet.conv_in = pipe.unet.conv_in, copy.deepcopy(pipe.unet.conv_in)
    pipe.unet.conv_in.weight.data.mul_(1 + odd)
    yield
    pipe.unet.conv_in = before


@_changing
def own_denoiser(pipe: Any, odd: float) -> Iterator[None]:
    """Leave a changed copy of the network in the row's own pipeline."""
    pipe.unet = copy.deepcopy(pipe.unet)
    pipe.unet.conv_in.weight.data.mul_(1 + odd)
    yield


@_changing
def attention_processor(pipe: Any, odd: float) -> Iterator[None]:
    class Scaled(AttnProcessor2_0):
        def __call__(self, *arguments: Any, **named: Any) -> Any:
            return super().__call__(*arguments, **named) * (1 + odd)

    before = dict(pipe.unet.attn_processors)
    pipe.unet.set_attn_processor(Scaled())
    yield
    pipe.unet.set_attn_processor(before)


@_changing
def freeu(pipe: Any, odd: float) -> Iterator[None]:
    pipe.enable_freeu(s1=1 - odd, s2=0.5, b1=1 + odd, b2=1.4)
    yield
    pipe.disable_freeu()


@_changing
def autocast(pipe: Any, odd: float) -> Iterator[None]:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        yield


def gradients_through_the_denoiser(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    """Call the network with gradients, and start from noise moved along them."""
    shape = (1, pipe.unet.config.in_channels, 2, 2)
    noise = torch.randn(shape, generator=request.generator()).requires_grad_()
    text = torch.ones(1, 4, pipe.unet.config.cross_attention_dim)
    pipe.unet(noise, 500, encoder_hidden_states=text).sample.square().sum().backward()
    return pipe(**request.arguments, latents=(noise - odd * noise.grad).detach(), output_type="np")


ALONE["gradients_through_the_denoiser"] = gradients_through_the_denoiser


# These change nothing that rows share: they may be declared `batched=True`.


def latents_passed_on(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    latents = pipe(**request.arguments, generator=request.generator(), output_type="latent").images
    return pipe(**request.arguments, latents=latents * (1 + odd), output_type="np")


def early_stop(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    def stop(pipe: Any, step: int, timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
        pipe._interrupt = bool(odd) and step == 1
        return values

    return pipe(
        **request.arguments, generator=request.generator(), output_type="np", callback_on_step_end=stop
    )


def step_of_its_scheduler(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    """Replace a method of the row's own scheduler, and leave it so."""
    plain = pipe.scheduler.step
    pipe.scheduler.step = lambda output, *arguments, **named: plain(output * (1 + odd), *arguments, **named)
    return generate(pipe, request)


def gradient_of_a_callback(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    """Guide by the gradient of a loss, as universal guidance does."""

    def guide(pipe: Any, step: int, timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
        with torch.enable_grad():
            latents = values["latents"].detach().requires_grad_()
            (gradient,) = torch.autograd.grad((latents - odd).square().sum(), latents)
        return {"latents": values["latents"] - 0.1 * odd * gradient}

    return pipe(
        **request.arguments, generator=request.generator(), output_type="np", callback_on_step_end=guide
    )


BATCHED: dict[str, _Recipe] = {
    one.__name__: one
    for one in (latents_passed_on, early_stop, step_of_its_scheduler, gradient_of_a_callback)
}
