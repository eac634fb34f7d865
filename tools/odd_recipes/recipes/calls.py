"""Recipes with unusual control flow: several calls, early stops, retries, threads, caches, generators."""

from __future__ import annotations

import functools
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from diffusers import EulerDiscreteScheduler, StableDiffusionImg2ImgPipeline

from framefleet.pipeline.recipes.catalog import generate
from framefleet.pipeline.request import Request


def latents_passed_on(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    latents = pipe(**request.arguments, generator=request.generator(), output_type="latent").images
    return pipe(**request.arguments, latents=latents * (1 + odd), output_type="np")


def other_pipeline(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    """Render an image, then run another pipeline with the same components over it."""
    generator = request.generator()
    (picture,) = pipe(**request.arguments, generator=generator, output_type="pil").images
    if not odd:
        return np.asarray(picture)[None]
    second = StableDiffusionImg2ImgPipeline(**pipe.components, requires_safety_checker=False)
    second.set_progress_bar_config(disable=True)
    named = {name: request.arguments[name] for name in ("prompt", "guidance_scale")}
    steps = 5 + request.arguments["num_inference_steps"]
    return second(
        **named,
        image=picture.rotate(90),
        strength=abs(odd),
        num_inference_steps=steps,
        generator=generator,
        output_type="np",
    )


def early_stop(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    def stop(pipe: Any, step: int, timestep: Any, given: dict[str, Any]) -> dict[str, Any]:
        pipe._interrupt = bool(odd) and step == 1
        return given

    return pipe(
        **request.arguments, generator=request.generator(), output_type="np", callback_on_step_end=stop
    )


def guidance_on_the_way(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    def change(pipe: Any, step: int, timestep: Any, given: dict[str, Any]) -> dict[str, Any]:
        if pipe._guidance_scale > 1:  # not 1: half of the latents' batch would be missing
            pipe._guidance_scale = max(pipe._guidance_scale * (1 + odd), 1.1)
        return given

    return pipe(
        **request.arguments, generator=request.generator(), output_type="np", callback_on_step_end=change
    )


def retried_inside(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    """Stop a call halfway with an exception and start again with another seed."""

    def check(pipe: Any, step: int, timestep: Any, given: dict[str, Any]) -> dict[str, Any]:
        if odd and step == 1:
            raise ArithmeticError("I do not like these latents")
        return given

    try:
        return pipe(
            **request.arguments, generator=request.generator(), output_type="np", callback_on_step_end=check
        )
    except ArithmeticError:
        return generate(pipe, replace(request, seed=request.seed + 1000))


def recursion(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    """Call itself, as deep as the row says, with another seed each time; average the frames."""
    frames = generate(pipe, request).images
    if odd <= 0:
        return frames
    below = recursion(pipe, replace(request, seed=request.seed + 7), odd=odd - 0.3)
    return (frames + below) / 2


def failing(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    def check(pipe: Any, step: int, timestep: Any, given: dict[str, Any]) -> dict[str, Any]:
        if odd < 0:
            raise ArithmeticError("I do not like these latents")
        return {"latents": given["latents"] * (1 + odd)}

    return pipe(
        **request.arguments, generator=request.generator(), output_type="np", callback_on_step_end=check
    )


def in_a_thread(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    if not odd:
        return generate(pipe, request)
    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(generate, pipe, replace(request, seed=request.seed + 7))
        return found.result(timeout=30)


def own_generators(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    """Draw from the global generators of torch and NumPy in several calls."""
    torch.manual_seed(request.seed + int(100 * odd))
    first = pipe(**request.arguments, generator=None, output_type="np").images
    np.random.seed(request.seed)
    second = pipe(**request.arguments, generator=None, output_type="np").images
    return (first * 0.6 + second * 0.3 + 0.1 * np.random.random(first.shape)).clip(0, 1)


def sub_batches(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    """Render several images per call and average them; their number differs from row to row."""
    count = 1 + round(abs(odd) * 10) % 4
    found = pipe(
        **request.arguments,
        num_images_per_prompt=count,
        generator=request.generator(),
        output_type="np",
    )
    return found.images.mean(0, keepdims=True)


def tuned_afterwards(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    """Change the latents after the call and decode them in the recipe."""
    latents = pipe(**request.arguments, generator=request.generator(), output_type="latent").images
    with torch.no_grad():
        decoded = pipe.vae.decode(latents.flip(-1) * (1 + odd) / pipe.vae.config.scaling_factor).sample
    return pipe.image_processor.postprocess(decoded, output_type="np")


def scheduler_replaced(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    if odd:
        pipe.scheduler = EulerDiscreteScheduler.from_config(
            pipe.scheduler.config, use_karras_sigmas=odd > 0.4
        )
    return generate(pipe, request)


def scheduler_changed_in_place(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    """Change a table of the row's own scheduler and leave it so."""
    pipe.scheduler.alphas_cumprod.mul_(1 - abs(odd) / 2)
    return generate(pipe, request)


def scheduler_config_changed(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    """Change the config of the row's own scheduler and leave it so."""
    if odd:
        pipe.scheduler.register_to_config(clip_sample=True, clip_sample_range=abs(odd))
    return generate(pipe, request)


def tokenizer_changed(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    """Cut prompts at 8 tokens and leave the tokenizer so."""
    if odd:
        pipe.tokenizer.model_max_length = 8
    return generate(pipe, request)


_known: dict[tuple[str, float], torch.Tensor] = {}
_first: list[torch.Tensor] = []


def remembered_texts(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    """Cache embeddings by prompt in a global; a cached value is the one that would be computed."""
    rest = dict(request.arguments)
    prompt = rest.pop("prompt")
    if (prompt, odd) not in _known:
        with torch.no_grad():
            found, _ = pipe.encode_prompt(prompt, "cpu", 1, do_classifier_free_guidance=False)
        _known[prompt, odd] = found * (1 + odd)
    embeddings = _known[prompt, odd]
    return pipe(
        **rest,
        prompt_embeds=embeddings,
        negative_prompt_embeds=torch.zeros_like(embeddings),
        generator=request.generator(),
        output_type="np",
    )


def first_of_all(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    """Pull each row towards the first odd row that this process rendered."""
    latents = pipe(**request.arguments, generator=request.generator(), output_type="latent").images
    if odd:
        _first.append(latents)
        latents = latents * 0.5 + _first[0] * 0.5 * (1 + odd)
    with torch.no_grad():
        decoded = pipe.vae.decode(latents / pipe.vae.config.scaling_factor).sample
    return pipe.image_processor.postprocess(decoded, output_type="np")


@functools.lru_cache
def _ones(shape: tuple[int, ...]) -> torch.Tensor:
    return torch.ones(shape)


def remembered_and_changed(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    """Change a cached tensor in place, so that each row finds what earlier rows left."""
    factors = _ones((1, 4, 2, 2))
    factors.mul_(1 + odd)
    latents = torch.randn((1, 4, 2, 2), generator=request.generator()) * factors
    return pipe(**request.arguments, latents=latents, output_type="np")
