"""What a table of tiny pipelines holds of each, and how those are built that share their parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import diffusers
from diffusers import DiffusionPipeline, ModularPipeline

# How it is built, its smallest call, and what it starts from beside a prompt: names, or how many frames of
# each.
Tiny = tuple[
    Callable[[], DiffusionPipeline | ModularPipeline], dict[str, Any], tuple[str, ...] | Mapping[str, int]
]
Tinies = dict[str, Tiny]

STEPS: dict[str, Any] = {"num_inference_steps": 2}
IMAGE = {"height": 16, "width": 16, **STEPS}
LARGER = {"height": 32, "width": 32, **STEPS}
LARGEST = {"height": 128, "width": 128, **STEPS}
EDIT = IMAGE | {"strength": 0.5}
REDRAWN = STEPS | {"strength": 0.5}  # of the picture's own size
CHAT = LARGER | {"max_sequence_length": 256}  # room for what is written around a prompt
FRAMES_5 = IMAGE | {"num_frames": 5}
FRAMES_9 = IMAGE | {"num_frames": 9}
UNBINNED = {"use_resolution_binning": False}
# What a row starts from.
MASKED = ("image", "mask_image")
CONTROLLED = ("image", "control_image")
FILLED = ("image", "mask_image", "control_image")
# Of transformers.
HEADS: dict[str, Any] = {"num_attention_heads": 2, "attention_head_dim": 16}
ONE_LAYER = HEADS | {"num_layers": 1}
TWO_LAYERS = HEADS | {"num_layers": 2}
ONE_OF_EACH = ONE_LAYER | {"num_single_layers": 1}


def of(
    kind: str,
    made_of: Callable[[], DiffusionPipeline | ModularPipeline | dict[str, Any]],
    call: dict[str, Any],
    *inputs: str,
    **frames: int,
) -> Tiny:
    """Return the row of a pipeline of a class of diffusers. frames: of inputs that are several.

    made_of: returns what it is made of, or another pipeline of the same parts.
    """

    def build() -> DiffusionPipeline | ModularPipeline:
        given, made = made_of(), getattr(diffusers, kind)
        given = given if isinstance(given, dict) else parts(given)
        if issubclass(made, ModularPipeline):
            return modular_of(made, given)
        return made(**given)

    return build, call, {**dict.fromkeys(inputs, 1), **frames}


def parts(pipe: DiffusionPipeline | ModularPipeline) -> dict[str, Any]:
    """Return what a pipeline is made of."""
    return {name: part for name, part in pipe.components.items() if part is not None}


def modular_of(made: type[ModularPipeline], parts: Mapping[str, Any]) -> ModularPipeline:
    pipe = made()
    pipe.update_components(**{name: parts[name] for name in pipe.pretrained_component_names if name in parts})
    return pipe
