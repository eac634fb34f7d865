"""From noisy latents to the velocity that one step follows, guided by the prompt and by given frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from framefleet.pipeline.models.opensora.conditions import pack, positions, unpack
from framefleet.pipeline.models.opensora.guidance import TwoScales


@dataclass(frozen=True, slots=True)
class Text:
    """embeds: T5's, for every token, (B, L, 4096). pooled: CLIP's, for the whole, (B, 768)."""

    embeds: Tensor
    pooled: Tensor

    def repeated(self, times: int) -> Text:
        return Text(self.embeds.repeat_interleave(times, dim=0), self.pooled.repeat_interleave(times, dim=0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Denoiser:
    """A transformer, with what stays the same from step to step.

    negative: None where no step is guided. reference: tokens of mask and given frames, (B, S, channels); None
    for a transformer that takes none. embedded: guidance as an input, for transformers distilled to take it.
    """

    transformer: Any
    text: Text
    negative: Text | None
    reference: Tensor | None
    guidance: TwoScales
    embedded: Tensor | None
    image_ids: Tensor
    text_ids: Tensor

    @classmethod
    def of(
        cls,
        transformer: Any,
        text: Text,
        negative: Text | None,
        given: tuple[Tensor, Tensor],
        guidance: TwoScales,
    ) -> Denoiser:
        """given: mask and reference frames, (B, 1, T, H, W) and (B, C, T, H, W)."""
        config, (mask, reference) = transformer.config, given
        image_ids = positions(reference.shape, config.patch_size, reference.device)
        return cls(
            transformer=transformer,
            text=text,
            negative=negative,
            reference=pack(torch.cat([mask, reference], dim=1), config.patch_size)
            if takes_reference(config)
            else None,
            guidance=guidance,
            embedded=torch.full((len(reference),), guidance.text, device=reference.device)
            if config.guidance_embeds
            else None,
            image_ids=image_ids,
            text_ids=image_ids.new_zeros(text.embeds.shape[1], 3),
        )

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
        tokens = pack(latents, patch)
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
        return unpack(velocity.float(), patch, latents.shape)


def takes_reference(config: Any) -> bool:
    """Tell whether the transformer has inputs for mask and given frames."""
    return bool(config.in_channels > config.out_channels * config.patch_size**2)
