"""Recipes that copy, train, prune and tile networks, or build other pipelines from them."""

from __future__ import annotations

import copy
import io
import weakref
from dataclasses import replace
from typing import Any

import torch
from diffusers import AutoPipelineForText2Image, ControlNetModel, StableDiffusionControlNetPipeline
from PIL import Image
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune

from framefleet.pipeline.recipes.catalog import generate
from framefleet.pipeline.request import Request

_deep: weakref.WeakKeyDictionary[nn.Module, Any] = weakref.WeakKeyDictionary()


def copied(pipe: Any, request: Request, *, how: str = "none") -> Any:
    """Replace the network by a changed copy, or make a ControlNet from it."""
    if how == "control":
        return _controlled(pipe, request)
    if how == "pipeline":
        pipe = copy.deepcopy(pipe)
    if how == "pickled":
        torch.save(pipe.unet, file := io.BytesIO())
        file.seek(0)
        pipe.register_modules(unet=torch.load(file, weights_only=False))
    if how != "none":
        pipe.unet.conv_out.weight.data.mul_(0.5)
    return generate(pipe, request)


def _controlled(pipe: Any, request: Request) -> Any:
    control = ControlNetModel.from_unet(pipe.unet).eval()
    generator = torch.Generator().manual_seed(1)
    for weight in control.controlnet_mid_block.parameters():
        weight.data.normal_(generator=generator)
    other = StableDiffusionControlNetPipeline(
        **pipe.components, controlnet=control, requires_safety_checker=False
    )
    size = (request.arguments["width"], request.arguments["height"])
    return other(
        **request.arguments,
        image=Image.new("RGB", size, (200, 40, 90)),
        generator=request.generator(),
        output_type="np",
    )


def tuned_for_the_call(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    """Imagic: train the network on the row, render, and restore it."""
    if not odd:
        return generate(pipe, request)
    saved = copy.deepcopy(pipe.unet.state_dict())
    optimizer = torch.optim.SGD(pipe.unet.mid_block.parameters(), lr=abs(odd) / 100)
    with torch.no_grad():
        embeds, _ = pipe.encode_prompt(request.arguments["prompt"], "cpu", 1, False)
    noise = torch.randn((1, 4, 2, 2), generator=request.generator())
    for time in (800, 400):
        optimizer.zero_grad()
        found = pipe.unet(noise, time, encoder_hidden_states=embeds).sample
        (found - noise).square().mean().backward()
        optimizer.step()
    try:
        return generate(pipe, request)
    finally:
        pipe.unet.load_state_dict(saved)
        pipe.unet.zero_grad()


def perturbed_attention(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    """Call a PAG pipeline, which swaps attention processors. 16 x 16 is too small for it to change frames."""
    named = {**request.arguments, "height": 32, "width": 32}
    if odd:
        pipe = AutoPipelineForText2Image.from_pipe(pipe, enable_pag=True, pag_applied_layers="mid")
        pipe.set_progress_bar_config(disable=True)
        named["pag_scale"] = 5 * abs(odd)
    return generate(pipe, replace(request, arguments=named))


def tiled_for_the_call(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    """Decode in tiles of two latents."""
    request = replace(request, arguments={**request.arguments, "height": 32, "width": 32})
    if not odd:
        return generate(pipe, request)
    pipe.vae.enable_tiling()
    pipe.vae.tile_latent_min_size, pipe.vae.tile_sample_min_size = 2, 16
    try:
        return generate(pipe, request)
    finally:
        pipe.vae.disable_tiling()


def dropout(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    """Monte Carlo dropout: call the network in training mode."""
    torch.manual_seed(request.seed)
    if not odd:
        return generate(pipe, request)
    layers = [layer for layer in pipe.unet.modules() if isinstance(layer, nn.Dropout)]
    pipe.unet.train()
    for layer in layers:
        layer.p = abs(odd) / 2
    try:
        return generate(pipe, request)
    finally:
        pipe.unet.eval()
        for layer in layers:
            layer.p = 0.0


class _Halved(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight / 2


def pruned(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    """Prune a layer for the call."""
    layer = pipe.unet.conv_in
    if not odd:
        return generate(pipe, request)
    prune.l1_unstructured(layer, "weight", amount=abs(odd))
    original = layer.weight_orig.detach().clone()
    try:
        return generate(pipe, request)
    finally:
        prune.remove(layer, "weight")
        layer.weight.data = original


def parametrized(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    """Parametrize a layer for the call, which also changes the layer's class."""
    layer = pipe.unet.conv_in
    if not odd:
        return generate(pipe, request)
    parametrize.register_parametrization(layer, "weight", _Halved())
    try:
        return generate(pipe, request)
    finally:
        parametrize.remove_parametrizations(layer, "weight", leave_parametrized=False)


def blocks_reused(pipe: Any, request: Request, *, every: int = 1) -> Any:
    """DeepCache: compute the middle block every few steps; a dict keyed by the block holds its output."""
    block = pipe.unet.mid_block
    if every == 1:
        return generate(pipe, request)
    original, calls = block.forward, iter(range(1000))

    def forward(*arguments: Any, **named: Any) -> Any:
        if next(calls) % every == 0:
            _deep[block] = original(*arguments, **named)
        return _deep[block]

    block.forward = forward
    try:
        return generate(pipe, request)
    finally:
        del block.forward, _deep[block]
