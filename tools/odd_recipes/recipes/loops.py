"""Recipes that call the network themselves: denoising loops, gradients, other weights, generators."""

from __future__ import annotations

import functools
import io
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import safetensors.torch
import torch
from torch import Tensor
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

from framefleet.pipeline.request import Request

Predict = Callable[[Tensor, Tensor, Tensor], Tensor]  # latents, timestep, embeddings of the prompt -> noise


@torch.compile(backend="eager", dynamic=True)
def _guided(noise: Tensor, uncond: Tensor, scale: float) -> Tensor:
    return uncond + scale * (noise - uncond)


@torch.no_grad()
def all_timesteps_at_once(pipe: Any, request: Request, *, sweeps: int = 2) -> Any:
    """ParaDiGMS: predict all steps of the row in one call, a batch with a different timestep each."""
    prompt, empty = _pair(pipe, request)
    latents, scale = _first(pipe, request), request.arguments["guidance_scale"]
    times = pipe.scheduler.timesteps
    path = latents.repeat(len(times), 1, 1, 1)
    for _ in range(sweeps):
        noise = pipe.unet(path, times, prompt.expand(len(times), -1, -1), return_dict=False)[0]
        if scale > 1:
            uncond = pipe.unet(path, times, empty.expand(len(times), -1, -1), return_dict=False)[0]
            noise = _guided(noise, uncond, scale)
        found = [latents]
        for place, time in enumerate(times):
            found.append(pipe.scheduler.step(noise[place : place + 1], time, found[-1]).prev_sample)
        path = torch.cat(found[:-1])
    return _decode(pipe, found[-1])


def gradient_in_each_step(pipe: Any, request: Request, *, odd: float = 0.0, again: bool = False) -> Any:
    """Guide by a gradient through the network. again: checkpoint it, so backward runs the forward again."""

    def predict(latents: Tensor, time: Tensor, embeds: Tensor) -> Tensor:
        forward = functools.partial(_predict(pipe), time=time, embeds=embeds)
        if not odd:
            return forward(latents).detach()
        with torch.enable_grad():
            free = latents.detach().requires_grad_()
            noise = checkpoint(forward, free, use_reentrant=False) if again else forward(free)
            (slope,) = torch.autograd.grad(noise.square().sum(), free)
        return noise.detach() + odd * slope

    return _looped(pipe, request, predict)


def other_weights_for_a_forward(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    """Use `functional_call` to run the network with other weights."""
    values = {name: weight for name, weight in pipe.unet.named_parameters() if "attn2.to_v" in name}
    changed = {name: weight * (1 + odd) for name, weight in values.items()}

    def predict(latents: Tensor, time: Tensor, embeds: Tensor) -> Tensor:
        return functional_call(pipe.unet, changed, (latents, time, embeds)).sample

    return _looped(pipe, request, predict if odd else _predict(pipe))


def predictions_saved(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    """Scale predictions in place and save them. The size of the files sets the brightness."""
    num_bytes = 0

    @torch.no_grad()
    def predict(latents: Tensor, time: Tensor, embeds: Tensor) -> Tensor:
        nonlocal num_bytes
        noise = _predict(pipe)(latents, time, embeds)
        noise.mul_(1 + odd * noise.std())
        torch.save(noise, file := io.BytesIO())  # for a view, it saves the whole storage
        num_bytes += len(file.getvalue()) + len(safetensors.torch.save({"noise": noise}))
        return noise

    frames = _looped(pipe, request, predict)
    return (frames * (0.7 + num_bytes % 1000 / 4000)).clip(0, 1)


def left_early(pipe: Any, request: Request, *, stop: int = 0) -> Any:
    """Drop a generator half-way; it then restores the weights that it changed."""
    weight = pipe.unet.conv_out.weight

    @torch.no_grad()
    def boosted() -> Iterator[Tensor]:
        original = weight.clone()
        weight.mul_(1.5)
        try:
            yield from _steps(pipe, request, _predict(pipe))
        finally:
            weight.copy_(original)

    if not stop:
        return _looped(pipe, request, _predict(pipe))
    for _, latents in zip(range(stop), boosted(), strict=False):
        last = latents
    return _decode(pipe, last)


def noise_that_lives(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    """Add earlier predictions that are still referenced somewhere. In a script, none is."""
    before: weakref.WeakValueDictionary[int, Tensor] = weakref.WeakValueDictionary()

    @torch.no_grad()
    def predict(latents: Tensor, time: Tensor, embeds: Tensor) -> Tensor:
        noise = _predict(pipe)(latents, time, embeds)
        older = [tensor.mean() for tensor in before.values()]
        if odd:
            before[int(time)] = noise
        return noise * (1 + odd) + sum(older, torch.zeros(()))

    return _looped(pipe, request, predict)


def prompt_fades(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    """Change the embeddings in a callback through NumPy, which leaves the tensor's version alone."""

    def fade(pipe: Any, step: int, time: Any, given: dict[str, Any]) -> dict[str, Any]:
        given["prompt_embeds"].numpy()[:] *= 1 + odd
        return {}

    return pipe(
        **request.arguments,
        generator=request.generator(),
        output_type="np",
        callback_on_step_end=fade,
        callback_on_step_end_tensor_inputs=["prompt_embeds"],
    ).images


@torch.no_grad()
def best_of_three(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    """Start from the noise with the smallest prediction. `min` calls `forward` of the network's class."""
    generator = request.generator()
    shape = (1, 4, request.arguments["height"] // 8, request.arguments["width"] // 8)
    noises = [torch.randn(shape, generator=generator) * (1 + odd) for _ in range(3)]
    prompt, _ = _pair(pipe, request)

    def score(noise: Tensor) -> float:
        forward = type(pipe.unet).forward
        return float(forward(pipe.unet, noise, 500, prompt, return_dict=False)[0].abs().mean())

    return pipe(**request.arguments, latents=min(noises, key=score), output_type="np")


def _looped(pipe: Any, request: Request, predict: Predict) -> Any:
    *_, latents = _steps(pipe, request, predict)
    return _decode(pipe, latents.detach())


def _steps(pipe: Any, request: Request, predict: Predict) -> Iterator[Tensor]:
    """Yield the latents after each step: one prediction without guidance, two with it."""
    prompt, empty = _pair(pipe, request)
    latents, scale = _first(pipe, request), request.arguments["guidance_scale"]
    for time in pipe.scheduler.timesteps:
        noise = predict(latents, time, prompt)
        if scale > 1:
            uncond = predict(latents, time, empty)
            noise = uncond + scale * (noise - uncond)
        latents = pipe.scheduler.step(noise, time, latents).prev_sample
        yield latents


def _predict(pipe: Any) -> Predict:
    return lambda latents, time, embeds: pipe.unet(latents, time, encoder_hidden_states=embeds).sample


@torch.no_grad()
def _pair(pipe: Any, request: Request) -> tuple[Tensor, Tensor]:
    """Return the embeddings of the prompt and of an empty one."""
    prompt, empty = pipe.encode_prompt(request.arguments["prompt"], "cpu", 1, True)
    return prompt, empty


def _first(pipe: Any, request: Request) -> Tensor:
    pipe.scheduler.set_timesteps(request.arguments["num_inference_steps"])
    shape = (1, 4, request.arguments["height"] // 8, request.arguments["width"] // 8)
    return torch.randn(shape, generator=request.generator())


@torch.no_grad()
def _decode(pipe: Any, latents: Tensor) -> Any:
    images = pipe.vae.decode(latents / pipe.vae.config.scaling_factor).sample
    return pipe.image_processor.postprocess(images, output_type="np")
