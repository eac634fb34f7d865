"""Open-Sora's noise levels, and how strongly text and reference guide each step."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

ALWAYS_GUIDED = 10  # steps from the start at which oscillating guidance does not let go


def shifted_sigmas(
    num_inference_steps: int,
    *,
    tokens_per_frame: int,
    num_latent_frames: int,
    flow_shift: float | None = None,
) -> list[float]:
    """Return the noise levels from 1 to 0, both included.

    Larger and longer clips stay longer at high noise: without `flow_shift` the shift rises from 1 at 256
    tokens of a frame to 3 at 4096, times the square root of the latent frames.
    """
    shift = flow_shift
    if shift is None:
        shift = (1 + (3 - 1) / (4096 - 256) * (tokens_per_frame - 256)) * math.sqrt(num_latent_frames)
    levels = torch.linspace(1, 0, num_inference_steps + 1)
    sigmas: list[float] = (shift * levels / (1 + (shift - 1) * levels)).tolist()
    return sigmas


@dataclass(frozen=True, slots=True, kw_only=True)
class TwoScales:
    """How strongly each step follows the prompt (`text`) and the reference frames (`image`); 1 is not at all.

    text_oscillates, image_oscillates: after the first steps every second one is not guided.
    image_ramps: guidance by the reference rises from frame to frame, and falls from step to step.
    """

    text: float
    image: float
    text_oscillates: bool
    image_oscillates: bool
    image_ramps: bool
    num_steps: int

    @property
    def is_on(self) -> bool:
        return self.text != 1 or self.image != 1

    def text_scale(self, step: int) -> float:
        return 1.0 if self.text_oscillates and _lets_go(step) else self.text

    def image_scale(self, step: int) -> float:
        return 1.0 if self.image_oscillates and _lets_go(step) else self.image

    def image_scales(self, step: int, latents: Tensor) -> Tensor | float:
        """Return what the guided difference of `latents`' shape (B, C, T, H, W) is multiplied with."""
        scale = self.image_scale(step)
        if not (self.image_ramps and scale > 1):
            return scale
        last_frame = torch.linspace(scale, 1, self.num_steps + 1)[step].item()
        scales = torch.linspace(1, last_frame, latents.shape[2], device=latents.device)
        return scales.reshape(-1, 1, 1)  # (T, 1, 1)


def _lets_go(step: int) -> bool:
    return step >= ALWAYS_GUIDED and step % 2 == 1
