"""From a checkpoint of VideoCrafter or DynamiCrafter to how it becomes a pipeline folder."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from diffusers import AutoencoderKL
from torch import Tensor, nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    CLIPVisionModelWithProjection,
)

from framefleet.pipeline.conversion.checkpoint import Checkpoint
from framefleet.pipeline.conversion.configs import Config, built, inferred, settled
from framefleet.pipeline.conversion.plan import Conversion, Network, Origin
from framefleet.pipeline.models.crafter import encoder_keys as keys
from framefleet.pipeline.models.crafter.resampler import (
    VideoCrafterImageProjector,
    VideoCrafterPooledImageProjector,
)
from framefleet.pipeline.models.crafter.scheduler import VideoCrafterDDIMScheduler
from framefleet.pipeline.models.crafter.tokenizer import clip_tokenizer
from framefleet.pipeline.models.crafter.unet import VideoCrafterUNet3DModel
from framefleet.pipeline.models.crafter.unet_keys import unet_config, unet_origins
from framefleet.pipeline.models.crafter.variant_choice import SCALES, chosen_variant

Shapes = Mapping[str, Tensor]

_UNET = "model.diffusion_model."
_TEXT, _CLIP = "cond_stage_model.model.", "embedder.model."
_VISION, _PROJECTOR = f"{_CLIP}visual.", "image_proj_model."
_PIXELS = 8  # of one latent, in all of them
# Buffers of the noise schedule, which the scheduler computes.
_BUFFERS = (
    "betas",
    "alphas_cumprod",
    "alphas_cumprod_prev",
    "sqrt_alphas_cumprod",
    "sqrt_one_minus_alphas_cumprod",
    "log_one_minus_alphas_cumprod",
    "sqrt_recip_alphas_cumprod",
    "sqrt_recipm1_alphas_cumprod",
    "posterior_variance",
    "posterior_log_variance_clipped",
    "posterior_mean_coef1",
    "posterior_mean_coef2",
    "logvar",
    "scale_factor",
    SCALES,
)
_OF_TEXT = ("logit_scale", "text_projection", "attn_mask")  # that open_clip has beside what the encoder needs
_BLOCK = re.compile(r"transformer\.resblocks\.(\d+)\.(.+)$")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """One network of the original. prefix: of its names. config: from shapes. make: from a config.

    origins: from our names, shapes, and the prefix.
    """

    prefix: str
    config: Callable[[Shapes], Config]
    origins: Callable[[list[str], Shapes, str], dict[str, Origin]]
    make: Callable[..., nn.Module]


def _text_encoder(**config: Any) -> CLIPTextModel:
    return CLIPTextModel(CLIPTextConfig(**config))


def _image_encoder(**config: Any) -> CLIPVisionModel:
    return CLIPVisionModel(CLIPVisionConfig(**config))


def _pooled_image_encoder(**config: Any) -> CLIPVisionModelWithProjection:
    return CLIPVisionModelWithProjection(CLIPVisionConfig(**config))


_PARTS = {
    "unet": _Part(prefix=_UNET, config=unet_config, origins=unet_origins, make=VideoCrafterUNet3DModel),
    "vae": _Part(
        prefix="first_stage_model.",
        config=keys.vae_config,
        origins=keys.vae_origins,
        make=AutoencoderKL,
    ),
    "text_encoder": _Part(
        prefix=_TEXT, config=keys.text_config, origins=keys.text_origins, make=_text_encoder
    ),
}
_IMAGE_PARTS = {
    "image_encoder": _Part(
        prefix=_VISION, config=keys.vision_config, origins=keys.vision_origins, make=_image_encoder
    ),
    "image_projector": _Part(
        prefix=_PROJECTOR,
        config=keys.projector_config,
        origins=keys.projector_origins,
        make=VideoCrafterImageProjector,
    ),
}
_POOLED_IMAGE_PARTS = {
    "image_encoder": _Part(
        prefix=_VISION, config=keys.vision_config, origins=keys.vision_origins, make=_pooled_image_encoder
    ),
    "image_projector": _Part(
        prefix=_PROJECTOR,
        config=keys.pooled_projector_config,
        origins=keys.pooled_projector_origins,
        make=VideoCrafterPooledImageProjector,
    ),
}


def convert_crafter(
    checkpoint: Checkpoint, *, variant: str | None, given: Mapping[str, Any]
) -> Conversion | None:
    """Return the conversion, or None for a checkpoint of another family."""
    if not any(name.startswith(f"{_UNET}init_attn.") for name in checkpoint.shapes):
        return None
    place = str(checkpoint.path)
    unet = _inferred("unet", _PARTS["unet"], checkpoint)
    parts = _PARTS | _image_parts(unet, checkpoint)
    configs = {name: _inferred(name, part, checkpoint) for name, part in parts.items()}
    chosen = chosen_variant(unet, checkpoint, variant)
    size = [length // _PIXELS for length in chosen.size]
    configs["unet"] |= {"sample_size": size, "default_fps": chosen.default_fps}
    configs["scheduler"] = {
        key: value
        for key, value in VideoCrafterDDIMScheduler(**chosen.scheduler).config.items()
        if not key.startswith("_")
    }
    configs = settled(configs, given, place=place)
    networks = {name: _network(name, part, configs[name], checkpoint) for name, part in parts.items()}
    scheduler = VideoCrafterDDIMScheduler(**configs["scheduler"])
    used = {name for network in networks.values() for o in network.origins.values() for name in o.names}
    depth = configs["text_encoder"]["num_hidden_layers"]
    return Conversion(
        variant=chosen.name,
        pipeline=chosen.pipeline,
        networks=networks,
        others={"tokenizer": clip_tokenizer(), "scheduler": scheduler},
        ignored=frozenset(name for name in checkpoint.shapes if _is_unused(name, depth)) - used,
    )


def _image_parts(unet: Config, checkpoint: Checkpoint) -> dict[str, _Part]:
    if not unet["image_cross_attention"]:
        return {}
    # Only VideoCrafter1 can have it: tokens of DynamiCrafter are of one frame each.
    is_pooled = f"{_PROJECTOR}proj.weight" in checkpoint.shapes and unet["in_channels"] == 4
    return _POOLED_IMAGE_PARTS if is_pooled else _IMAGE_PARTS


def _inferred(name: str, part: _Part, checkpoint: Checkpoint) -> Config:
    shapes = checkpoint.below(part.prefix)
    return inferred(name, part.config, shapes, prefix=part.prefix, place=str(checkpoint.path))


def _network(name: str, part: _Part, config: Config, checkpoint: Checkpoint) -> Network:
    module = built(name, part.make, config, place=str(checkpoint.path))
    origins = part.origins(list(module.state_dict()), checkpoint.below(part.prefix), part.prefix)
    return Network(module=module, origins=origins)


def _is_unused(name: str, depth: int) -> bool:
    """Whether it is a tensor of the originals that nothing here needs. depth: blocks of our text encoder."""
    if name in _BUFFERS or name == f"{_VISION}proj":
        return True
    if name.startswith(_CLIP):  # CLIP as a whole, whose text tower the image encoder does not need
        inner, depth = name.removeprefix(_CLIP), 0
        return inner in (*_OF_TEXT, *keys.CLIP_TEXT.values()) or _is_block_beyond(inner, depth)
    inner = name.removeprefix(_TEXT)
    return inner != name and (inner in _OF_TEXT or _is_block_beyond(inner, depth))


def _is_block_beyond(name: str, depth: int) -> bool:
    """Whether it is of a block of a text tower behind the last that is used: "penultimate" leaves one."""
    block = _BLOCK.match(name)
    return block is not None and int(block[1]) >= depth and keys.is_block_tensor(block[2])
