"""Tiny VideoCrafter and DynamiCrafter folders, as `framefleet model convert` makes them."""

from __future__ import annotations

import atexit
import functools
import random
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from framefleet import Request, convert_model
from framefleet.pipeline.outputs.frames.frames import frames_sha256
from tests.crafter_originals import checkpoint

TEXT, IMAGE, MOTION = "videocrafter2-t2v-512", "videocrafter1-i2v-512", "dynamicrafter-512"
POSITIONS, NO_FPS, GATE = "videocrafter1-t2v-1024", "videocrafter1-t2v-512", "dynamicrafter-256"
NUM_ROWS = 5
SMALLEST = {"height": 64, "width": 64, "num_frames": 3, "num_inference_steps": 2}


@functools.cache
def crafter(variant: str) -> Path:
    """Return the folder of a tiny model, converted once per process and removed at its exit."""
    parent = Path(tempfile.mkdtemp(prefix="framefleet-crafter-"))
    atexit.register(shutil.rmtree, parent, ignore_errors=True)
    tensors = checkpoint(variant)
    with torch.no_grad():
        for name in ("weight", "bias"):  # keeps most pixels between black and white
            tensors[f"first_stage_model.decoder.conv_out.{name}"].mul_(0.5)
    torch.save({"state_dict": tensors}, parent / "model.ckpt")
    convert_model(parent / "model.ckpt", parent / variant, variant=variant)
    return parent / variant


def picture(seed: int, size: tuple[int, int] = (80, 70)) -> Image.Image:
    """Return an RGB picture of coarse random colours."""
    generator = torch.Generator().manual_seed(seed)
    colours = torch.randint(0, 256, (5, 5, 3), generator=generator, dtype=torch.uint8)
    return Image.fromarray(colours.numpy()).resize(size, Image.Resampling.BICUBIC)


def mixed_rows(variant: str, folder: Path) -> list[Request]:
    """Rows that differ in everything that a row may; their pictures are in `folder`, named relative to it."""
    draw = random.Random(variant)
    for seed in (1, 2):
        picture(seed).save(folder / f"{seed}.png")
    rows = []
    for seed in range(NUM_ROWS):
        arguments: dict[str, Any] = {
            **SMALLEST,
            "prompt": draw.choice(["a cat", "雨", "a very long walk " * 30]),
            "num_inference_steps": draw.choice([2, 3]),
            "guidance_scale": draw.choice([1.0, 7.5, 12.0]),
            "eta": draw.choice([0.0, 1.0]),
            "fps": draw.choice([8, 24]),
        }
        if variant in (IMAGE, MOTION, GATE):
            arguments["image"] = draw.choice(["1.png", "2.png"])
        if variant in (MOTION, GATE):
            arguments["guidance_rescale"] = draw.choice([0.0, 0.7])
            arguments["last_image"] = draw.choice([None, "2.png"])
            arguments["image_guidance_scale"] = draw.choice([None, 3.0])
        rows.append(Request(arguments={k: v for k, v in arguments.items() if v is not None}, seed=seed))
    draw.shuffle(rows)
    return rows


def plain_digest(pipe: Any, row: Request, folder: Path) -> str:
    """What a script without framefleet's renderer gets from the pipeline."""
    opened = {
        name: Image.open(folder / row.arguments[name]).convert("RGB")
        for name in ("image", "last_image")
        if name in row.arguments
    }
    output = pipe(**{**row.arguments, **opened}, generator=row.generator(), output_type="np")
    return frames_sha256((output.frames[0] * 255).round().astype(np.uint8))
