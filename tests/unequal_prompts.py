"""Tables of models that do not pad their prompts: rows of unequal lengths, and what plain calls give."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from framefleet import Model, Request
from framefleet.pipeline.outputs.frames.frames import frames_sha256
from tests.tiny import SMALLEST

PROMPTS = (
    "a red ball",
    "一只绿色的猫在雨中奔跑",
    "a dog runs " * 3,
    "海",
    "a cat on the mat",
    "两匹马在草原上",
    "sunset",
)
STEPS = (2, 3, 4)
# What switches guidance on, and so a second prompt.
CHOICES: dict[str, dict[str, Sequence[Any]]] = {
    "z_image": {"guidance_scale": (0.0, 3.0, 5.5), "negative_prompt": ("", "blurry, 低质量")},
    "qwen_image": {"true_cfg_scale": (1.0, 3.0, 5.5), "negative_prompt": ("blurry, 低质量",)},
}


def unequal_rows(name: str, count: int) -> list[dict[str, Any]]:
    """Return arguments and seeds of rows in no order."""
    draw = random.Random(name)
    choices = {"prompt": PROMPTS, "num_inference_steps": STEPS} | CHOICES[name]
    return [
        SMALLEST[name]
        | {"seed": seed}
        | {argument: draw.choice(values) for argument, values in choices.items()}
        for seed in range(count)
    ]


def requests_of(rows: Sequence[dict[str, Any]]) -> list[Request]:
    return [
        Request(arguments={k: v for k, v in row.items() if k != "seed"}, seed=row["seed"]) for row in rows
    ]


def plain_digest(model: Model, request: Request) -> str:
    """Return the digest of what a plain diffusers call gives."""
    generator = torch.Generator("cpu").manual_seed(request.seed)
    output = model.pipe(**request.arguments, generator=generator, output_type="np")
    return frames_sha256((output.images * 255).round().astype(np.uint8))
