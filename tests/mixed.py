"""The central promise: a row's frames are those of a plain diffusers call, whatever its company."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

import diffusers
import numpy as np
import torch

from framefleet import Request
from framefleet.pipeline.frames import frames_sha256
from tests.tiny import SMALLEST, tiny

NUM_ROWS = 64
PROMPTS = ("a red ball", "一只绿色的猫在雨中奔跑", "a dog runs " * 3, "海")
STEPS = (2, 3, 4)  # few, so that rows keep finishing and others join
GUIDANCE = (1.0, 3.0, 5.5)
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}

# At 16 x 16 Flux has one token, whose ids look like a batch of one row.
SIZES = SMALLEST | {"flux": {"height": 32, "width": 32}}

FLOW = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
# By the name in a row: what a plain script writes, `Class.from_config(pipe.scheduler.config, **changes)`.
SCHEDULERS: dict[str, dict[str | None, tuple[str, dict[str, Any]] | None]] = {
    "wan": {
        None: None,
        "dpmpp_2m": ("DPMSolverMultistepScheduler", {}),
        "flow_euler": ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}),
    },
    "wan_moe": {None: None, "UniPCMultistepScheduler": ("UniPCMultistepScheduler", {})},
    "cogvideox": {None: None, "cogvideox_dpm": ("CogVideoXDPMScheduler", {})},
    "ltx": {None: None, "unipc": ("UniPCMultistepScheduler", FLOW)},
    "flux": {None: None, "dpmpp_2m": ("DPMSolverMultistepScheduler", FLOW | {"flow_shift": 3.0})},
    "sd": {
        None: None,
        "ddim": ("DDIMScheduler", {}),
        "euler_a": ("EulerAncestralDiscreteScheduler", {}),
        "dpmpp_2m_karras": ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True}),
    },
}


def mixed_table(name: str) -> list[Request]:
    draw = random.Random(name)
    rows = []
    for seed in range(NUM_ROWS):
        scheduler = draw.choice(list(SCHEDULERS[name]))
        arguments = {
            **SIZES[name],
            "prompt": draw.choice(PROMPTS),
            "num_inference_steps": draw.choice(STEPS),
            "guidance_scale": draw.choice(GUIDANCE),
        }
        if name == "sd" and scheduler in (None, "ddim"):
            arguments["eta"] = draw.choice([0.0, 0.5])
        rows.append(Request(arguments=arguments, seed=seed, scheduler=scheduler))
    draw.shuffle(rows)
    return rows


def plain_digests(name: str, dtype: torch.dtype, rows: list[Request]) -> Iterator[str]:
    """What a script without framefleet renders, one row after the other."""
    folder = tiny(name)
    class_name = json.loads((folder / "model_index.json").read_text())["_class_name"]
    pipe = getattr(diffusers, class_name).from_pretrained(folder, dtype=dtype)
    pipe.set_progress_bar_config(disable=True)
    own = pipe.scheduler
    for row in rows:
        choice = SCHEDULERS[name][row.scheduler]
        pipe.scheduler = own
        if choice is not None:
            scheduler_class, changes = getattr(diffusers, choice[0]), choice[1]
            pipe.scheduler = scheduler_class.from_config(own.config, **changes)
        generator = torch.Generator("cpu").manual_seed(row.seed)
        output = pipe(**row.arguments, generator=generator, output_type="np")
        frames = output.frames[0] if hasattr(output, "frames") else output.images
        yield frames_sha256((frames * 255).round().astype(np.uint8))
