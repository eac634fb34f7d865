"""The networks of VideoCrafter and DynamiCrafter: where checkpoints have them, and how they become ours."""

from __future__ import annotations

from typing import Any

from diffusers import AutoencoderKL
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    CLIPVisionModelWithProjection,
)

from framefleet.plugins.ports.conversion.checkpoint import Checkpoint
from framefleet.plugins.ports.conversion.configs import Config, NetworkPart
from framefleet.plugins.ports.conversion.plan import same_names
from framefleet.plugins.ports.crafter import encoder_keys as keys
from framefleet.plugins.ports.crafter.resampler import (
    VideoCrafterImageProjector,
    VideoCrafterPooledImageProjector,
)
from framefleet.plugins.ports.crafter.unet import VideoCrafterUNet3DModel
from framefleet.plugins.ports.crafter.unet_keys import unet_config, unet_origins

UNET = "model.diffusion_model."
TEXT, WHOLE_CLIP = "cond_stage_model.model.", "embedder.model."
VISION, _PROJECTOR = f"{WHOLE_CLIP}visual.", "image_proj_model."


def _text_encoder(**config: Any) -> CLIPTextModel:
    return CLIPTextModel(CLIPTextConfig(**config))


def _image_encoder(**config: Any) -> CLIPVisionModel:
    return CLIPVisionModel(CLIPVisionConfig(**config))


def _pooled_image_encoder(**config: Any) -> CLIPVisionModelWithProjection:
    return CLIPVisionModelWithProjection(CLIPVisionConfig(**config))


PARTS = {
    "unet": NetworkPart(UNET, unet_config, unet_origins, VideoCrafterUNet3DModel),
    "vae": NetworkPart("first_stage_model.", keys.vae_config, keys.vae_origins, AutoencoderKL),
    "text_encoder": NetworkPart(TEXT, keys.text_config, keys.text_origins, _text_encoder),
}
_IMAGE_PARTS = {
    "image_encoder": NetworkPart(VISION, keys.vision_config, keys.vision_origins, _image_encoder),
    "image_projector": NetworkPart(
        _PROJECTOR, keys.projector_config, keys.projector_origins, VideoCrafterImageProjector
    ),
}
POOLED_IMAGE_PARTS = {
    "image_encoder": NetworkPart(VISION, keys.vision_config, keys.vision_origins, _pooled_image_encoder),
    "image_projector": NetworkPart(
        _PROJECTOR, keys.pooled_projector_config, same_names, VideoCrafterPooledImageProjector
    ),
}


def network_parts(unet: Config, checkpoint: Checkpoint) -> dict[str, NetworkPart]:
    """Return the parts of a checkpoint with such a denoiser."""
    if not unet["image_cross_attention"]:
        return PARTS
    # Only VideoCrafter1 can have it: tokens of DynamiCrafter are of one frame each.
    is_pooled = f"{_PROJECTOR}proj.weight" in checkpoint.shapes and unet["in_channels"] == 4
    return PARTS | (POOLED_IMAGE_PARTS if is_pooled else _IMAGE_PARTS)
