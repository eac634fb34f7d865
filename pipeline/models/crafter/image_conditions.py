"""From images to what the denoiser is told of them: tokens to attend to, and latents beside the noise."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from framefleet.pipeline.models.crafter.clip_image import clip_pixels
from framefleet.pipeline.models.crafter.pipeline_base import Generators


class ImageConditions:
    """For pipelines with image_encoder, image_projector, vae and video_processor."""

    image_encoder: Any
    image_projector: Any
    vae: Any
    video_processor: Any
    _execution_device: torch.device

    def pixels_of(
        self, image: Any, height: int, width: int, *, batch_size: int, name: str = "image"
    ) -> Tensor:
        """Return (B, 3, H, W) in [-1, 1], fp32: resized to cover the frame, and cropped in the middle.

        Tensors and arrays, which diffusers crops not, are resized to the frame.
        """
        pixels: Tensor = self.video_processor.preprocess(image, height, width, resize_mode=_mode(image))
        if pixels.shape[0] == 1:
            pixels = pixels.expand(batch_size, -1, -1, -1)
        if pixels.shape[0] != batch_size:
            raise ValueError(f"`{name}` holds {pixels.shape[0]} images, the prompts are {batch_size}")
        return pixels.to(self._execution_device, torch.float32)

    def image_tokens(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> (B, N, D)"""
        size = self.image_encoder.config.image_size
        seen = clip_pixels(pixels, size).to(self.image_encoder.dtype)
        encoded = self.image_encoder(seen)
        # One with projection goes with a projector of that, others with one of all tokens.
        embeds = encoded.image_embeds if "image_embeds" in encoded else encoded.last_hidden_state
        tokens: Tensor = self.image_projector(embeds.to(self.image_projector.dtype))
        return tokens

    def image_latents(self, pixels: Tensor, generator: Generators) -> Tensor:
        """(B, 3, H, W) -> (B, 4, H/8, W/8), sampled, as the originals do, each row with its own generator."""
        own = generator if isinstance(generator, list) else [generator] * len(pixels)
        sampled = [
            self.vae.encode(row[None].to(self.vae.dtype)).latent_dist.sample(generator=drawn)
            for row, drawn in zip(pixels, own, strict=True)
        ]
        latents: Tensor = torch.cat(sampled) * self.vae.config.scaling_factor
        return latents


def _mode(image: Any) -> str:
    first = image[0] if isinstance(image, list) else image
    return "crop" if hasattr(first, "convert") else "default"  # a PIL image
