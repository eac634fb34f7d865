"""Computes the velocity of one step, guided by prompt and frames, and the noise levels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from framefleet.plugins.latent_tokens import pack_latents, positions, unpack_latents

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
    return (shift * levels / (1 + (shift - 1) * levels)).tolist()


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


@dataclass(frozen=True, slots=True)
class Text:
    """embeds: T5's, for every token, (B, L, 4096). pooled: CLIP's, for the whole, (B, 768)."""

    embeds: Tensor
    pooled: Tensor


class Denoiser:
    """A transformer, with what stays the same from step to step."""

    def __init__(
        self,
        transformer: Any,
        text: Text,
        negative: Text | None,
        given: tuple[Tensor, Tensor],
        guidance: TwoScales,
    ) -> None:
        """negative: None if no step is guided. given: mask (B, 1, T, H, W), frames (B, C, T, H, W)."""
        config, (mask, frames) = transformer.config, given
        self.transformer, self.text, self.negative, self.guidance = transformer, text, negative, guidance
        self.reference: Tensor | None = None  # tokens of mask and given frames, (B, S, channels)
        if takes_reference(config):
            self.reference = pack_latents(torch.cat([mask, frames], dim=1), config.patch_size)
        self.embedded: Tensor | None = None  # guidance as an input, for transformers distilled to take it
        if config.guidance_embeds:
            self.embedded = torch.full((len(frames),), guidance.text, device=frames.device)
        self.image_ids = positions(frames.shape, config.patch_size, frames.device)
        self.text_ids = self.image_ids.new_zeros(text.embeds.shape[1], 3)

    def velocity(self, step: int, latents: Tensor, level: Tensor) -> Tensor:
        """Return the guided velocity in fp32; predictions that would cancel out are not made.

        latents: (B, C, T, H, W). level: of the noise, a scalar from 1 to 0.
        """
        with_text = self._predict("cond", latents, level, self.text)
        text_scale, is_guided = self.guidance.text_scale(step), self.guidance.image_scale(step) != 1
        if self.negative is None or (text_scale == 1 and not is_guided):
            return with_text
        without_text = self._predict("uncond", latents, level, self.negative)
        towards_text = text_scale * (with_text - without_text)
        if not is_guided:
            return without_text + towards_text
        without_both = self._predict("uncond_image", latents, level, self.negative, is_blind=True)
        towards_image = self.guidance.image_scales(step, latents) * (without_text - without_both)
        return without_both + towards_image + towards_text

    def _predict(
        self, name: str, latents: Tensor, level: Tensor, text: Text, *, is_blind: bool = False
    ) -> Tensor:
        """is_blind: the transformer does not see the given frames."""
        patch, dtype = self.transformer.config.patch_size, self.transformer.dtype
        tokens = pack_latents(latents, patch)
        if self.reference is not None:
            seen = torch.zeros_like(self.reference) if is_blind else self.reference
            tokens = torch.cat([tokens, seen], dim=-1)
        with self.transformer.cache_context(name):
            velocity = self.transformer(
                hidden_states=tokens.to(dtype),
                encoder_hidden_states=text.embeds.to(dtype),
                pooled_projections=text.pooled.to(dtype),
                timestep=level.expand(len(latents)),
                img_ids=self.image_ids,
                txt_ids=self.text_ids,
                guidance=self.embedded,
                return_dict=False,
            )[0]
        return unpack_latents(velocity.float(), patch, latents.shape)


def takes_reference(config: Any) -> bool:
    """Tell whether the transformer has inputs for mask and given frames."""
    return bool(config.in_channels > config.out_channels * config.patch_size**2)
