"""From a checkpoint of VideoCrafter or DynamiCrafter to how it becomes a pipeline folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPVisionConfig, CLIPVisionModel

from framefleet.pipeline.conversion.checkpoint import Checkpoint
from framefleet.pipeline.conversion.plan import Conversion, Network, Origin
from framefleet.pipeline.errors import ModelError
from framefleet.pipeline.models.crafter import encoder_keys as keys
from framefleet.pipeline.models.crafter.resampler import VideoCrafterImageProjector
from framefleet.pipeline.models.crafter.scheduler import VideoCrafterDDIMScheduler
from framefleet.pipeline.models.crafter.tokenizer import clip_tokenizer
from framefleet.pipeline.models.crafter.unet import VideoCrafterUNet3DModel
from framefleet.pipeline.models.crafter.unet_keys import unet_config, unet_origins
from framefleet.pipeline.models.crafter.variants import VARIANTS, Variant, traits_of

_UNET = "model.diffusion_model."
_TEXT, _VISION = "cond_stage_model.model.", "embedder.model.visual."
_SCALES = "scale_arr"  # the buffer that tells models apart whose networks are alike
# Buffers of the noise schedule, which the scheduler computes, and parts of open_clip that neither tower uses.
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
    _SCALES,
)
_UNUSED = ("logit_scale", "text_projection", "attn_mask")
_TOKENS_PER_FRAME = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """One network of the original. prefix: of its names. config, origins: from shapes. build: from config."""

    prefix: str
    config: Callable[[Mapping[str, Tensor]], dict[str, Any]]
    origins: Callable[[Mapping[str, Tensor], str], dict[str, Origin]]
    build: Callable[[dict[str, Any]], nn.Module]


_PARTS = {
    "vae": _Part(
        prefix="first_stage_model.",
        config=keys.vae_config,
        origins=keys.vae_origins,
        build=lambda config: AutoencoderKL(**config),
    ),
    "text_encoder": _Part(
        prefix=_TEXT,
        config=keys.text_config,
        origins=keys.text_origins,
        build=lambda config: CLIPTextModel(CLIPTextConfig(**config)),
    ),
}
_IMAGE_PARTS = {
    "image_encoder": _Part(
        prefix=_VISION,
        config=keys.vision_config,
        origins=keys.vision_origins,
        build=lambda config: CLIPVisionModel(CLIPVisionConfig(**config)),
    ),
    "image_projector": _Part(
        prefix="image_proj_model.",
        config=lambda shapes: keys.projector_config(
            shapes, num_frames=max(1, shapes["latents"].shape[1] // _TOKENS_PER_FRAME)
        ),
        origins=keys.projector_origins,
        build=lambda config: VideoCrafterImageProjector(**config),
    ),
}


def convert_crafter(checkpoint: Checkpoint, *, variant: str | None) -> Conversion | None:
    """Return the conversion, or None for a checkpoint of another family."""
    if not any(name.startswith(f"{_UNET}init_attn.") for name in checkpoint.shapes):
        return None
    place = str(checkpoint.path)
    config = _config("unet", unet_config, checkpoint.below(_UNET), place)
    chosen = _chosen(_fitting(config, checkpoint), variant, place)
    if config["default_fps"] is not None:
        config["default_fps"] = chosen.default_fps
    factor = 8  # pixels of one latent, in all of them
    config["sample_size"] = [length // factor for length in chosen.size]
    parts = _PARTS | (_IMAGE_PARTS if config["image_cross_attention"] else {})
    networks = {name: _network(name, part, checkpoint) for name, part in parts.items()}
    with torch.device("meta"):
        unet = VideoCrafterUNet3DModel(**config)
    networks["unet"] = Network(module=unet, origins=unet_origins(checkpoint.below(_UNET), _UNET))
    return Conversion(
        variant=chosen.name,
        pipeline=chosen.pipeline,
        networks=networks,
        others={"tokenizer": clip_tokenizer(), "scheduler": VideoCrafterDDIMScheduler(**chosen.scheduler)},
        ignored=frozenset(filter(_is_unused(checkpoint), checkpoint.shapes)),
    )


def _network(name: str, part: _Part, checkpoint: Checkpoint) -> Network:
    shapes = checkpoint.below(part.prefix)
    config = _config(name, part.config, shapes, str(checkpoint.path))
    with torch.device("meta"):
        module = part.build(config)
    return Network(module=module, origins=part.origins(shapes, part.prefix))


def _config(
    name: str,
    infer: Callable[[Mapping[str, Tensor]], dict[str, Any]],
    shapes: Mapping[str, Tensor],
    place: str,
) -> dict[str, Any]:
    try:
        return infer(shapes)
    except (LookupError, ValueError) as error:  # a tensor that it is inferred from is not there, or misshapen
        missing = f", for instance {error}" if isinstance(error, KeyError) else ""
        raise ModelError(
            f"{place} has no complete {name}: tensors are missing{missing}",
            "give the checkpoint with all parts",
        ) from error


def _fitting(config: Mapping[str, Any], checkpoint: Checkpoint) -> list[Variant]:
    """Return the variants whose denoiser looks like this one, and whose latents scale like its own."""
    found = [variant for variant in VARIANTS if variant.traits == traits_of(config)]
    if _SCALES in checkpoint.shapes:
        last = float(checkpoint.read(_SCALES)[-1])
        found = [variant for variant in found if abs(variant.latent_scale - last) < 1e-3]
    return found


def _chosen(fitting: list[Variant], asked: str | None, place: str) -> Variant:
    names = ", ".join(variant.name for variant in fitting)
    if not fitting:
        raise ModelError(
            f"{place} is like VideoCrafter, but of none of its models that are known",
            f"known are {', '.join(variant.name for variant in VARIANTS)}",
        )
    if asked is None and len(fitting) > 1:
        raise ModelError(f"{place} may be {names}: their networks are alike", "say which with --variant")
    chosen = [variant for variant in fitting if asked in (None, variant.name)]
    if not chosen:
        raise ModelError(f"{place} is not {asked}", f"by its tensors it is {names}")
    return chosen[0]


def _is_unused(checkpoint: Checkpoint) -> Callable[[str], bool]:
    blocks = [
        int(name.removeprefix(f"{_TEXT}transformer.resblocks.").split(".")[0])
        for name in checkpoint.shapes
        if name.startswith(f"{_TEXT}transformer.resblocks.")
    ]
    last_block = f"{_TEXT}transformer.resblocks.{max(blocks, default=0)}."

    def is_unused(name: str) -> bool:
        in_clip = name.startswith((_TEXT, "embedder.model."))
        return (
            name in _BUFFERS
            or name.startswith(last_block)  # "penultimate"
            or (in_clip and name.rpartition(".")[2] in _UNUSED)
            or name == f"{_VISION}proj"
            or (name.startswith("embedder.model.") and not name.startswith(_VISION))  # its text tower
        )

    return is_unused
