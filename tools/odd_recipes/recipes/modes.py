"""Recipes that change global settings of torch: dtypes, gradients, kernels, threads."""

from __future__ import annotations

from typing import Any

import torch

from framefleet.pipeline.recipes.catalog import generate
from framefleet.pipeline.request import Request


def autocast(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bool(odd)):
        return generate(pipe, request)


def default_dtype(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    if not odd:
        return generate(pipe, request)
    torch.set_default_dtype(torch.float64)
    try:
        frames = generate(pipe, request).images
        noise = torch.randn(frames.shape, generator=request.generator())
        return (torch.from_numpy(frames) + odd * 0.1 * noise).clamp(0, 1).numpy()
    finally:
        torch.set_default_dtype(torch.float32)


def inference_mode(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    with torch.inference_mode(bool(odd)):
        return (generate(pipe, request).images * (1 + odd)).clip(0, 1)


def gradients_of_a_callback(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    """Guide by the gradient of a loss, as universal guidance does."""

    def guide(pipe: Any, step: int, timestep: Any, given: dict[str, Any]) -> dict[str, Any]:
        with torch.enable_grad():
            latents = given["latents"].detach().requires_grad_()
            (gradient,) = torch.autograd.grad((latents - odd).square().sum(), latents)
        return {"latents": given["latents"] - 0.1 * odd * gradient}

    return pipe(
        **request.arguments, generator=request.generator(), output_type="np", callback_on_step_end=guide
    )


def gradients_of_the_recipe(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    """Move the prompt's embeddings along a gradient; a script has gradients switched on."""
    prompt = request.arguments["prompt"]
    with torch.no_grad():
        embeddings, negative = pipe.encode_prompt(prompt, "cpu", 1, do_classifier_free_guidance=True)
    embeddings = embeddings.clone().requires_grad_()
    (embeddings.square().sum() * odd).backward()
    rest = {name: value for name, value in request.arguments.items() if name != "prompt"}
    return pipe(
        **rest,
        prompt_embeds=(embeddings - 0.1 * embeddings.grad).detach(),
        negative_prompt_embeds=negative,
        generator=request.generator(),
        output_type="np",
    )


def gradients_through_the_denoiser(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    """Call the network with gradients, and start from noise moved along them."""
    shape = (1, pipe.unet.config.in_channels, 2, 2)
    noise = torch.randn(shape, generator=request.generator()).requires_grad_()
    text = torch.ones(1, 4, pipe.unet.config.cross_attention_dim)
    pipe.unet(noise, 500, encoder_hidden_states=text).sample.square().sum().backward()
    return pipe(**request.arguments, latents=(noise - odd * noise.grad).detach(), output_type="np")


def gradients_left_off(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    torch.set_grad_enabled(not odd)
    return generate(pipe, request)


def deterministic_left(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    """Leave the switch on; frames are halved where another row's switch is found, as in no fresh process."""
    found = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(bool(odd), warn_only=True)
    frames = generate(pipe, request).images
    return frames / 2 if found else frames


def threads(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    """Use two threads for the call; frames are halved where another row's two threads are found."""
    before = torch.get_num_threads()
    torch.set_num_threads(2 if odd else before)
    try:
        return generate(pipe, request).images / before
    finally:
        torch.set_num_threads(before)
