"""Recipes that use state of the whole process: its working folder, loggers, event loop, classes, modes."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import copy
import logging
import os
import tempfile
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionPipeline,
)
from diffusers.image_processor import VaeImageProcessor
from torch.utils.flop_counter import FlopCounterMode

from framefleet.pipeline.recipes.catalog import generate
from framefleet.pipeline.request import Request

_LOGGER = logging.getLogger("diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion")
_SOLVER = DPMSolverMultistepScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
_strength = contextvars.ContextVar("strength", default=1.0)


def event_loop(pipe: Any, request: Request, *, how: str = "none") -> Any:
    """Call the pipeline below `asyncio.run`, in a coroutine or two threads; a callback reads the context."""

    def render(part: Any, seed: int) -> Any:
        given = replace(request, seed=seed)
        named = given.arguments | {"callback_on_step_end": _fade}
        return generate(part, replace(given, arguments=named)).images

    async def coroutine() -> Any:
        await asyncio.sleep(0)
        return render(pipe, request.seed)

    async def threads() -> Any:
        parts = [copy.copy(pipe), copy.copy(pipe)]
        for part in parts:
            part.scheduler = copy.deepcopy(pipe.scheduler)
            part.tokenizer = copy.deepcopy(pipe.tokenizer)  # a call sets how it truncates and pads
        calls = [asyncio.to_thread(render, part, request.seed + i) for i, part in enumerate(parts)]
        first, second = await asyncio.gather(*calls)
        return (first + second) / 2

    if how == "none":
        return render(pipe, request.seed)
    _strength.set(0.8)
    return asyncio.run(coroutine() if how == "coroutine" else threads())


def _fade(pipe: Any, step: int, time: Any, given: dict[str, Any]) -> dict[str, Any]:
    return {"latents": given["latents"] * _strength.get()}


def working_folder(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    """Save a draft in the working folder and its strength in the environment, then render over it."""
    if not odd:
        return generate(pipe, request)
    over = StableDiffusionImg2ImgPipeline.from_pipe(pipe)
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        os.environ["DRAFT_STRENGTH"] = str(abs(odd) + 0.2)
        draft = generate(pipe, request).images
        np.save("draft.npy", draft)
        final = over(
            prompt=request.arguments["prompt"],
            image=draft,
            generator=request.generator(),
            num_inference_steps=6,
            strength=float(os.environ["DRAFT_STRENGTH"]),
            output_type="np",
        ).images
        return (final + float(os.environ["DRAFT_STRENGTH"]) * np.load("draft.npy")) / 2


def warnings_heard(pipe: Any, request: Request, *, odd: float = 0.0, repeats: int = 1) -> Any:
    """Render again with a shorter prompt if diffusers warns that the prompt was cut."""
    arguments: Any = request.arguments  # changed in place, as careless people do
    arguments["prompt"] *= repeats
    if not odd:
        return generate(pipe, request)
    heard: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: heard.append(record.getMessage())  # type: ignore[method-assign]
    _LOGGER.addHandler(handler)
    try:
        output = generate(pipe, request)
    finally:
        _LOGGER.removeHandler(handler)
    if not heard:
        return output
    arguments["prompt"] = arguments["prompt"][:8]
    return generate(pipe, request)


def operations_counted(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    """Set the brightness by the number of operations that torch counted."""
    if not odd:
        return generate(pipe, request)
    with FlopCounterMode(display=False) as counter:
        frames = generate(pipe, request).images
    return frames * (0.5 + counter.get_total_flops() % 1009 / 2018)


class _Fading(StableDiffusionPipeline):  # type: ignore[misc]
    """Guide less each time the scale is read."""

    num_asked = 0

    @property
    def guidance_scale(self) -> float:
        self.num_asked += 1
        return float(self._guidance_scale) * 0.9**self.num_asked


def classes_changed(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    """Change the pipeline's class, and patch a method of diffusers' image processor for the call."""
    if not odd:
        return generate(pipe, request)
    pipe.__class__ = _Fading
    original = VaeImageProcessor.denormalize
    VaeImageProcessor.denormalize = staticmethod(lambda images: original(images) * (1 - abs(odd)))
    try:
        return generate(pipe, request)
    finally:
        VaeImageProcessor.denormalize = staticmethod(original)


def one_scheduler_for_all(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    """Use a multistep scheduler that the module created once."""
    if odd:
        pipe.scheduler = _SOLVER
    return generate(pipe, request)


@torch.no_grad()
def embeddings_changed(pipe: Any, request: Request, *, how: str = "none") -> Any:
    """Change what the text encoder returned in place: nobody else may get it so."""
    if how == "none":
        return generate(pipe, request)
    named = dict(request.arguments)
    ids = pipe.tokenizer(named.pop("prompt"), padding="max_length", truncation=True).input_ids
    embeds = pipe.text_encoder(torch.tensor([ids]))[0].mul_(1 + request.seed / 4)
    named |= {"prompt_embeds": embeds, "negative_prompt_embeds": torch.zeros_like(embeds)}
    return generate(pipe, replace(request, arguments=named))
