"""What our Open-Sora networks make of fixed weights and inputs: `python -m tests.opensora_outputs` prints it.

The few numbers kept of each output stand in for the references of the original networks, with which they were
found to agree.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from PIL import Image
from torch import Tensor

from framefleet.plugins.latent_tokens import pack_latents
from framefleet.plugins.ports.opensora.pipeline_opensora import OpenSoraPipeline
from tests import opensora

FILE = Path(__file__).with_name("references") / "opensora.json"
KEPT = 16  # values of each output, evenly spread


@functools.cache
def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def pipeline() -> OpenSoraPipeline:
    """Return one without text encoders: its calls are given embeddings."""
    pipe = OpenSoraPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=opensora.hunyuan_of(
            opensora.weights_of(opensora.hunyuan_shapes((16, 16, 32, 32), latent=4, layers=1))
        ),
        text_encoder=None,
        tokenizer=None,
        text_encoder_2=None,
        tokenizer_2=None,
        transformer=opensora.transformer_of(
            opensora.weights_of(opensora.transformer_shapes(opensora.Size()))
        ),
    )
    return pipe


def embeddings() -> dict[str, Any]:
    return {
        "prompt_embeds": noise(1, 8, 40, seed=1),
        "pooled_prompt_embeds": noise(1, 24, seed=2),
        "negative_prompt_embeds": noise(1, 8, 40, seed=3),
        "negative_pooled_prompt_embeds": noise(1, 24, seed=4),
    }


def outputs() -> dict[str, Tensor]:
    with torch.no_grad():
        return _networks() | _clips()


def _networks() -> dict[str, Tensor]:
    pipe = pipeline()
    dc = opensora.dc_of(
        opensora.weights_of(opensora.dc_shapes([8, 8, 16, 32, 32, 32], [1] * 6, [1] * 6, latent=16))
    )
    tokens = pack_latents(torch.cat([noise(2, 4, 3, 4, 6), noise(2, 5, 3, 4, 6, seed=1)], dim=1), 2)
    ids = torch.arange(tokens.shape[1] * 3).reshape(-1, 3).float() % 5
    velocity = pipe.transformer(
        hidden_states=tokens,
        encoder_hidden_states=noise(2, 8, 40),
        pooled_projections=noise(2, 24),
        timestep=torch.tensor([1.0, 0.37]),
        img_ids=ids,
        txt_ids=torch.zeros(8, 3),
    ).sample
    return {
        "transformer": velocity,
        "hunyuan_encode": pipe.vae.encode(noise(1, 3, 9, 32, 48)).latent_dist.mean,
        "hunyuan_decode": pipe.vae.decode(noise(1, 4, 3, 4, 6)).sample,
        "dc_encode": dc.encode(noise(1, 3, 8, 64, 32)).latent,
        "dc_encode_image": dc.encode(noise(1, 3, 1, 64, 32)).latent,
        "dc_decode": dc.decode(noise(1, 16, 2, 2, 1)).sample,
        "dc_decode_image": dc.decode(noise(1, 16, 1, 2, 1)).sample,
    }


def _clips() -> dict[str, Tensor]:
    pipe = pipeline()
    image = Image.new("RGB", (48, 32), (200, 40, 90))
    plain = {
        "oscillate_text_guidance": False,
        "oscillate_image_guidance": False,
        "ramp_image_guidance": False,
    }
    size = {"height": 32, "width": 48, "num_frames": 9, "num_inference_steps": 14, "output_type": "latent"}
    rows: dict[str, dict[str, Any]] = {
        "t2v": {},
        "t2v_plain": plain,
        "i2v_head": {"image": image},
        "i2v_tail": {"last_image": image},
        "i2v_loop_plain": {"image": image, "condition_type": "i2v_loop", **plain},
    }
    return {
        name: pipe(**embeddings(), **size, **row, generator=torch.Generator().manual_seed(0)).frames
        for name, row in rows.items()
    }


def kept(output: Tensor) -> list[float]:
    places = torch.linspace(0, output.numel() - 1, KEPT).long()
    return output.flatten()[places].tolist()


if __name__ == "__main__":
    torch.set_num_threads(1)
    lines = (f'  "{name}": {json.dumps(kept(output))}' for name, output in outputs().items())
    print("{\n" + ",\n".join(lines) + "\n}")
