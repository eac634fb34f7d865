"""Random weights of pipelines built in code: the same every time, and signals keep their size."""

from __future__ import annotations

import math

import torch
from diffusers import UniPCMultistepScheduler
from torch import nn
from transformers import UMT5Config, UMT5EncoderModel


def byte_text_encoder(width: int) -> UMT5EncoderModel:
    """Return an encoder of bytes to (B, tokens, width)."""
    return UMT5EncoderModel(
        UMT5Config(vocab_size=384, d_model=width, d_kv=16, d_ff=2 * width, num_layers=2, num_heads=4)
    )


def flow_scheduler() -> UniPCMultistepScheduler:
    """Return the noise scheduler that Wan 2.1 ships for 480p."""
    return UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)


def fill_weights(module: nn.Module, *, seed: int) -> None:
    """Overwrite every weight from `seed` so that signals keep their size, and leave training mode.

    Norms are 1 and biases 0. Queries and keys are scaled up, so that attention picks out the few
    bytes of a prompt among hundreds of padding rows, and prompts are seen in the frames.
    """
    generator = torch.Generator("cpu").manual_seed(seed)
    with torch.no_grad():
        for name, weight in module.named_parameters():
            if name.endswith("bias"):
                weight.zero_()
            elif weight.numel() == max(weight.shape, default=1):  # one number per channel: a norm
                weight.fill_(2.0 if "norm_q" in name or "norm_k" in name else 1.0)
            else:
                weight.normal_(std=1 / math.sqrt(_fan_in(name, weight)), generator=generator)
    module.eval()


def _fan_in(name: str, weight: torch.Tensor) -> int:
    return 1 if "embed_tokens" in name or "shared" in name else weight[0].numel()
