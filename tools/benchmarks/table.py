"""What every way renders: one model, one mixed and one uniform table of 64 rows, as files on disk."""

from __future__ import annotations

import itertools
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from diffusers import AutoencoderKLWan, WanPipeline, WanTransformer3DModel
from transformers import ByT5Tokenizer

from tests.random_weights import byte_text_encoder, fill_weights, flow_scheduler

ROWS = 64
MAX_ROWS = 16  # in one forward: as many as in the largest batch that is made by hand
TEXT_WIDTH = 32

SUBJECTS = ("a red ball", "two foxes", "a paper boat", "an old tram", "一只猫", "a kite", "rain", "a candle")
PLACES = (
    "on the grass",
    "at night",
    "by the sea",
    "in the snow",
    "在雨中",
    "in a desert",
    "uphill",
    "at dawn",
)

# Many, as in real use: with fewer, text and decode would weigh more than they do in real models.
STEPS = (24, 32, 40)
GUIDANCE = (1.0, 3.0, 5.0, 7.5)  # 1.0: the pipeline leaves the negative prompt out
SIZES = ((32, 32), (32, 48))
SCHEDULERS = (
    "UniPCMultistepScheduler",
    "DPMSolverMultistepScheduler",
)  # the two that Wan's own script offers
# 32 tokens of text, or Wan's 512 would cost this small denoiser more than the picture does.
SHARED = {"num_frames": 9, "max_sequence_length": 32}


def build_model(folder: Path, *, heads: int = 4, head_dim: int = 32, layers: int = 6) -> Path:
    """Save a Wan pipeline whose denoiser is most of the work and large enough not to be all overhead.

    As they stand, of 1.3 million parameters.
    """
    with torch.random.fork_rng(devices=[]):
        parts: dict[str, Any] = {
            "text_encoder": byte_text_encoder(TEXT_WIDTH),
            "transformer": WanTransformer3DModel(
                num_attention_heads=heads,
                attention_head_dim=head_dim,
                in_channels=4,
                out_channels=4,
                text_dim=TEXT_WIDTH,
                freq_dim=64,
                ffn_dim=4 * heads * head_dim,
                num_layers=layers,
            ),
            "vae": AutoencoderKLWan(
                base_dim=4,
                z_dim=4,
                dim_mult=[1, 1, 1, 1],
                num_res_blocks=1,
                latents_mean=[0.0] * 4,
                latents_std=[1.0] * 4,
            ),
        }
    for seed, part in enumerate(parts.values()):
        fill_weights(part, seed=seed)
    pipe = WanPipeline(**parts, tokenizer=ByT5Tokenizer(), scheduler=flow_scheduler())
    pipe.save_pretrained(folder, safe_serialization=True)
    return folder


def mixed_rows() -> list[dict[str, Any]]:
    """Every row differs in prompt and seed; sizes, steps, guidance and schedulers in no order."""
    settings = list(itertools.product(SIZES, STEPS, GUIDANCE, SCHEDULERS))  # 48
    shuffled = random.Random(0).sample([*settings, *settings], ROWS)
    return [
        _row(number, size=size, steps=steps, guidance=guidance, scheduler=scheduler)
        for number, (size, steps, guidance, scheduler) in enumerate(shuffled)
    ]


def uniform_rows() -> list[dict[str, Any]]:
    """Every row differs in prompt and seed, and in nothing else: what can be batched by hand."""
    return [
        _row(number, size=SIZES[0], steps=STEPS[1], guidance=5.0, scheduler=SCHEDULERS[0])
        for number in range(ROWS)
    ]


def _row(
    number: int, *, size: tuple[int, int], steps: int, guidance: float, scheduler: str
) -> dict[str, Any]:
    return {
        "number": number,  # framefleet carries it into the record
        "prompt": f"{SUBJECTS[number % 8]} {PLACES[number // 8]}",
        "seed": 1000 + number,
        "height": size[0],
        "width": size[1],
        "num_inference_steps": steps,
        "guidance_scale": guidance,
        "scheduler": scheduler,
        **SHARED,
    }


def write_table(rows: list[dict[str, Any]], path: Path) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path
