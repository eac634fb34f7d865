"""Autoencoders at their published sizes, without weights, and what they need to decode."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import diffusers
import torch

from framefleet.plugins.memory.stub_networks import metered

IN_2D = dict(down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4)
IN_3D = dict(down_block_types=("CogVideoXDownBlock3D",) * 4, up_block_types=("CogVideoXUpBlock3D",) * 4)
WAN_2_2 = dict(base_dim=160, decoder_base_dim=256, z_dim=48, is_residual=True, patch_size=2) | dict(
    in_channels=12, out_channels=12, latents_mean=[0.0] * 48, latents_std=[1.0] * 48
)


@dataclass(frozen=True, slots=True)
class Counted:
    """latent: its channels, and how many frames and pixels one place stands for."""

    class_name: str
    latent: tuple[int, int, int]
    config: Mapping[str, Any] = field(default_factory=dict)


COUNTED = {
    "wan": Counted("AutoencoderKLWan", (16, 4, 8)),
    "wan2.2-5b": Counted("AutoencoderKLWan", (48, 4, 16), config=WAN_2_2),
    "hunyuanvideo": Counted("AutoencoderKLHunyuanVideo", (16, 4, 8)),
    "hunyuanvideo-1.5": Counted("AutoencoderKLHunyuanVideo15", (32, 4, 16)),
    "cogvideox": Counted(
        "AutoencoderKLCogVideoX",
        (16, 4, 8),
        config=dict(block_out_channels=(128, 256, 256, 512), latent_channels=16, layers_per_block=3) | IN_3D,
    ),
    "ltx": Counted("AutoencoderKLLTXVideo", (128, 8, 32)),
    "ltx-2": Counted("AutoencoderKLLTX2Video", (128, 8, 32)),
    "mochi": Counted("AutoencoderKLMochi", (12, 6, 8)),
    "kl": Counted(
        "AutoencoderKL",
        (16, 0, 8),
        config=dict(block_out_channels=(128, 256, 512, 512), latent_channels=16, layers_per_block=2) | IN_2D,
    ),
    "sana": Counted("AutoencoderDC", (32, 0, 32)),
}


def decode_peak(counted: Counted, height: int, width: int, frames: int, *, tiling: bool = False) -> int:
    """Return the bytes that a decoder needs at its worst moment, in bf16, without its weights."""
    with torch.device("meta"):
        vae = getattr(diffusers, counted.class_name)(**counted.config).to(torch.bfloat16).eval()
    if tiling:
        vae.enable_tiling()
    channels, step, pixels = counted.latent
    places = ((frames - 1) // step + 1,) if step else ()
    shape = (1, channels, *places, height // pixels, width // pixels)
    latents = torch.empty(shape, device="meta", dtype=torch.bfloat16)
    with metered([latents, *vae.parameters(), *vae.buffers()]) as meter:
        vae.decode(latents, return_dict=False)
    return meter.peak
