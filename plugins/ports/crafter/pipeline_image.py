"""The pipelines that start from an image: what the denoiser is given of it, by tokens and by latents."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn import functional
from transformers import CLIPTextModel, CLIPTokenizer, CLIPVisionModel

from framefleet.plugins.ports.call_types import Generators
from framefleet.plugins.ports.crafter.pipeline_base import CrafterPipeline
from framefleet.plugins.ports.crafter.resampler import VideoCrafterImageProjector
from framefleet.plugins.ports.crafter.scheduler import VideoCrafterDDIMScheduler
from framefleet.plugins.ports.crafter.unet import VideoCrafterUNet3DModel

_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)


class ImageCrafterPipeline(CrafterPipeline):
    """Base of the pipelines that take an image; not one itself."""

    image_encoder: CLIPVisionModel
    image_projector: VideoCrafterImageProjector

    def __init__(
        self,
        vae: AutoencoderKL,
        text_encoder: CLIPTextModel,
        tokenizer: CLIPTokenizer,
        image_encoder: CLIPVisionModel,
        image_projector: VideoCrafterImageProjector,
        unet: VideoCrafterUNet3DModel,
        scheduler: VideoCrafterDDIMScheduler,
    ) -> None:
        super().__init__()
        self.register_modules(
            vae=vae,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            image_encoder=image_encoder,
            image_projector=image_projector,
            unet=unet,
            scheduler=scheduler,
        )
        self._prepare()

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


def clip_pixels(image: Tensor, size: int) -> Tensor:
    """(B, 3, H, W) in [-1, 1] -> (B, 3, size, size), normalised; the aspect ratio is not kept."""
    resized = functional.interpolate(
        _blurred(image, size), size=(size, size), mode="bicubic", align_corners=True
    )
    mean, std = (
        torch.tensor(v, dtype=image.dtype, device=image.device)[:, None, None] for v in (_MEAN, _STD)
    )
    return ((resized + 1) / 2 - mean) / std


def _blurred(image: Tensor, size: int) -> Tensor:
    """Blur what would alias, both sides by how much each shrinks (kornia's `resize(antialias=True)`)."""
    shrinks = [length / size for length in image.shape[-2:]]
    if max(shrinks) <= 1:
        return image
    rows, columns = (_kernel(max((shrink - 1) / 2, 0.001), like=image) for shrink in shrinks)
    margins = (len(columns) // 2,) * 2 + (len(rows) // 2,) * 2
    padded = functional.pad(image, margins, mode="reflect")
    channels = image.shape[1]
    weight = (rows[:, None] * columns[None, :]).expand(channels, 1, -1, -1)
    return functional.conv2d(padded, weight, groups=channels)


def _kernel(sigma: float, *, like: Tensor) -> Tensor:
    length = int(max(4 * sigma, 3)) | 1  # odd
    at = torch.arange(length, dtype=like.dtype, device=like.device) - length // 2
    bell = torch.exp(-(at**2) / (2 * sigma**2))
    return bell / bell.sum()
