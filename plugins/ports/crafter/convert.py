"""Plans how a checkpoint of VideoCrafter or DynamiCrafter becomes a pipeline folder.

Networks of some released models are alike; the scale of their latents tells them apart, if a file has it. A
checkpoint without encoders needs a file or folder of CLIP, with one tower or both, in open_clip's or
transformers' names, with any prefix. Another checkpoint of these models or Stable Diffusion 2's text encoder
work too.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer, CLIPVisionModel, CLIPVisionModelWithProjection
from transformers.convert_slow_tokenizer import bytes_to_unicode

from framefleet.api.errors import ModelError
from framefleet.pipeline.errors import setting
from framefleet.plugins.ports.conversion import plan
from framefleet.plugins.ports.conversion.checkpoint import Checkpoint
from framefleet.plugins.ports.crafter import keys, pipeline_videocrafter, resampler
from framefleet.plugins.ports.crafter.pipeline_base import CrafterPipeline
from framefleet.plugins.ports.crafter.pipeline_dynamicrafter import DynamiCrafterPipeline
from framefleet.plugins.ports.crafter.scheduler import VideoCrafterDDIMScheduler
from framefleet.plugins.ports.crafter.unet import VideoCrafterUNet3DModel

UNET = "model.diffusion_model."
TEXT, WHOLE_CLIP = "cond_stage_model.model.", "embedder.model."
VISION, _PROJECTOR = f"{WHOLE_CLIP}visual.", "image_proj_model."


def _clip(model: Any) -> Callable[..., nn.Module]:
    """Return what makes a model of transformers from the values of its config."""
    return lambda **config: model(model.config_class(**config))


PARTS = {
    "unet": plan.NetworkPart(UNET, keys.unet_config, keys.unet_origins, VideoCrafterUNet3DModel),
    "vae": plan.NetworkPart("first_stage_model.", keys.vae_config, keys.vae_origins, AutoencoderKL),
    "text_encoder": plan.NetworkPart(TEXT, keys.text_config, keys.text_origins, _clip(CLIPTextModel)),
}
_IMAGE_PARTS = {
    "image_encoder": plan.NetworkPart(
        VISION, keys.vision_config, keys.vision_origins, _clip(CLIPVisionModel)
    ),
    "image_projector": plan.NetworkPart(
        _PROJECTOR, keys.projector_config, keys.projector_origins, resampler.VideoCrafterImageProjector
    ),
}
POOLED_IMAGE_PARTS = {
    "image_encoder": plan.NetworkPart(
        VISION, keys.vision_config, keys.vision_origins, _clip(CLIPVisionModelWithProjection)
    ),
    "image_projector": plan.NetworkPart(
        _PROJECTOR,
        keys.pooled_projector_config,
        plan.same_names,
        resampler.VideoCrafterPooledImageProjector,
    ),
}


ENCODERS = {"text_encoder": TEXT, "image_encoder": VISION}  # where checkpoints have those that may be given
_WHERE = "CLIP ViT-H-14 has both, as in laion/CLIP-ViT-H-14-laion2B-s32B-b79K"
# What the name of a tensor ends with that a tower has once, in transformers and in open_clip.
_ENDS = {
    "text_encoder": ("embeddings.token_embedding.weight", "token_embedding.weight"),
    "image_encoder": ("embeddings.class_embedding", "class_embedding"),
}
_DEPTH = 23  # blocks of ViT-H-14's text tower that are used; Stable Diffusion 2 ships no more


def with_given(parts: Mapping[str, plan.NetworkPart], checkpoint: Checkpoint) -> dict[str, plan.NetworkPart]:
    """Return the parts of a checkpoint, with those that are given for it in their place.

    Raises ModelError with the encoders that it lacks, and for what is given and is none.
    """
    encoders = [name for name in ENCODERS if name in parts]
    lacking = [n for n in encoders if n not in checkpoint.parts and not checkpoint.below(ENCODERS[n])]
    if lacking:
        names = " and ".join(f"{name} ({ENCODERS[name]}*)" for name in lacking)
        raise ModelError(
            f"{checkpoint.path} has no {names}",
            f"it may be pruned: add {' '.join(setting(name, 'DIR') for name in lacking)}; {_WHERE}",
        )
    own = {name: _part_of(name, parts[name], checkpoint) for name in encoders if name in checkpoint.parts}
    return {**parts, **own}


def check_widths(
    parts: Mapping[str, plan.NetworkPart], configs: Mapping[str, plan.Config], checkpoint: Checkpoint
) -> None:
    """Raise ModelError for a given encoder of another width than the checkpoint was trained with."""
    readers = {
        "text_encoder": ("unet", "cross_attention_dim"),
        "image_encoder": ("image_projector", "image_embed_dim"),
    }
    for name in checkpoint.parts & readers.keys() & parts.keys():
        reader, key = readers[name]
        width = configs[name]["projection_dim" if _is_pooled(parts[name]) else "hidden_size"]
        if width != configs[reader][key]:
            raise ModelError(
                f"--set {name}: it is {width} wide, and the {reader} of {checkpoint.path} reads "
                f"{configs[reader][key]}",
                _WHERE,
            )


def _part_of(component: str, part: plan.NetworkPart, checkpoint: Checkpoint) -> plan.NetworkPart:
    """Return how a component becomes ours, of what is given for it. Raises ModelError where it is none."""
    of_transformers, of_open_clip = _ENDS[component]
    names = [name for name in checkpoint.shapes if name.startswith(f"{component}:")]
    for name in sorted(names, key=lambda n: (len(n), n)):  # of several, the one that is not in a folder
        if name.endswith(of_transformers) and not _is_pooled(part):
            stem = name.removesuffix(of_transformers)
            return replace(part, prefix=stem, config=partial(_own_config, part), origins=plan.same_names)
        if name.endswith(of_open_clip) and not name.endswith(of_transformers):
            return replace(part, prefix=name.removesuffix(of_open_clip))
    libraries = "open_clip" if _is_pooled(part) else "open_clip or transformers"
    raise ModelError(f"--set {component}: it has no {component} of CLIP in the names of {libraries}", _WHERE)


def _is_pooled(part: plan.NetworkPart) -> bool:
    return part.make is POOLED_IMAGE_PARTS["image_encoder"].make


def _own_config(part: plan.NetworkPart, shapes: plan.TensorShapes) -> plan.Config:
    """Return what `part.config` does for open_clip's names, which join queries, keys and values, for ours."""
    top = {ours: theirs for ours, theirs in (keys.CLIP_TEXT | keys.CLIP_VISION).items() if ours in shapes}
    renamed = {theirs: shapes[ours] for ours, theirs in top.items()}
    for name, shape in shapes.items():
        if block := re.match(r"encoder\.layers\.(\d+)\.(.+)\.(weight|bias)$", name):
            inner = keys.CLIP_BLOCK.get(block[2], block[2])
            renamed[f"transformer.resblocks.{block[1]}.{inner}.{block[3]}"] = shape
    config = part.config(renamed)
    if part.config is keys.text_config:
        config["num_hidden_layers"] = min(plan.count_below(shapes, "encoder.layers."), _DEPTH)
    return config


@dataclass(frozen=True, slots=True)
class Variant:
    """One released model.

    size: (height, width) in pixels. traits: what tells its denoiser from the usual one.
    default_fps: of a call without one, from the authors' scripts; None where it is given none.
    scheduler: arguments of VideoCrafterDDIMScheduler.
    """

    name: str
    pipeline: type[CrafterPipeline]
    size: tuple[int, int]
    traits: dict[str, Any]
    default_fps: int | None
    scheduler: Mapping[str, Any] = field(default_factory=dict)


def _velocity(latent_scale: float) -> dict[str, Any]:
    return {
        "prediction_type": "v_prediction",
        "timestep_spacing": "trailing",
        "rescale_betas_zero_snr": True,
        "latent_scale": latent_scale,
        "dynamic_rescale": True,
    }


# Channels of the input; whether it has fps, temporal convolutions, positions, image attention, gate.
_USUAL = {"channels": 4, "fps": True, "convs": True, "positions": False, "image": False, "gate": False}
_POSITIONS = {"convs": False, "positions": True}
_CONCAT = {"channels": 8, "image": True}
_FROM_TEXT = pipeline_videocrafter.VideoCrafterPipeline
_FROM_IMAGE = pipeline_videocrafter.VideoCrafterImageToVideoPipeline

VARIANTS = (
    Variant("videocrafter2-t2v-512", _FROM_TEXT, (320, 512), {}, 28, {"latent_scale": 0.7}),
    Variant("videocrafter1-t2v-1024", _FROM_TEXT, (576, 1024), _POSITIONS, 28, {"latent_scale": 0.3}),
    Variant("videocrafter1-t2v-512", _FROM_TEXT, (320, 512), {**_POSITIONS, "fps": False}, None),
    Variant("videocrafter1-i2v-512", _FROM_IMAGE, (320, 512), {"image": True}, 8, {"latent_scale": 0.7}),
    Variant("dynamicrafter-256", DynamiCrafterPipeline, (256, 256), {**_CONCAT, "gate": True}, 3),
    Variant("dynamicrafter-512", DynamiCrafterPipeline, (320, 512), _CONCAT, 24, _velocity(0.7)),
    Variant("dynamicrafter-512-interp", DynamiCrafterPipeline, (320, 512), _CONCAT, 5, _velocity(0.7)),
    Variant("dynamicrafter-1024", DynamiCrafterPipeline, (576, 1024), _CONCAT, 10, _velocity(0.3)),
)


SCALES = "scale_arr"  # of latents, by timestep


def chosen_variant(
    unet: Mapping[str, Any], checkpoint: Checkpoint, asked: str | None, given: Mapping[str, Any]
) -> Variant:
    """Return the variant whose denoiser is like this one, and which scales latents as the file says.

    asked: as the user named it. given: values of configs; for those of the scheduler the file is not asked.
    Raises ModelError for none, and for several.
    """
    place = str(checkpoint.path)
    traits = {
        "channels": unet["in_channels"],
        "fps": unet["default_fps"] is not None,
        "convs": unet["use_temporal_conv"],
        "positions": unet["max_relative_position"] is not None,
        "image": unet["image_cross_attention"],
        "gate": unet["learnable_image_scale"],
    }
    alike = [variant for variant in VARIANTS if _USUAL | variant.traits == traits]
    if SCALES not in checkpoint.shapes or any(name.startswith("scheduler.") for name in given):
        return _one_of(alike, asked, place)
    scales = checkpoint.read(SCALES)
    scaled = [variant for variant in alike if _has_scales(variant, scales)]
    if alike and not scaled:
        raise ModelError(
            f"{place}: {SCALES}, of shape {tuple(scales.shape)}, is that of no model with such a denoiser",
            "say how latents are scaled, e.g. --set scheduler.latent_scale=0.7",
        )
    return _one_of(scaled, asked, place)


def _has_scales(variant: Variant, scales: Tensor) -> bool:
    """Whether a file's scales are those of a variant, but for their rounding."""
    expected = VideoCrafterDDIMScheduler(**variant.scheduler).latent_scales
    if scales.dim() != 1 or len(scales) < len(expected) or not scales.is_floating_point():
        return False
    precision = max(torch.finfo(scales.dtype).eps, 1e-6)
    return bool(((scales[: len(expected)].float() - expected).abs() <= precision).all())


def _one_of(fitting: list[Variant], asked: str | None, place: str) -> Variant:
    names = ", ".join(variant.name for variant in fitting)
    if not fitting:
        raise ModelError(
            f"{place} is like VideoCrafter, but of no known model of it",
            f"known are {', '.join(variant.name for variant in VARIANTS)}",
        )
    if asked is None and len(fitting) > 1:
        raise ModelError(f"{place} may be {names}: their networks are alike", "say which with --variant")
    chosen = [variant for variant in fitting if asked in (None, variant.name)]
    if not chosen:
        raise ModelError(f"{place} is not {asked}", f"by its tensors it is {names}")
    return chosen[0]


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
_OF_TEXT = ("logit_scale", "text_projection", "attn_mask")  # that open_clip has and the encoder does not need
_BLOCK = re.compile(r"transformer\.resblocks\.(\d+)\.(.+)$")
_MERGES = Path(__file__).with_name("clip_merges.txt.gz")


def convert_crafter(
    checkpoint: Checkpoint, *, variant: str | None, given: Mapping[str, Any]
) -> plan.Conversion | None:
    """Return the conversion, or None for a checkpoint of another family."""
    if not any(name.startswith(f"{UNET}init_attn.") for name in checkpoint.shapes):
        return None
    place = str(checkpoint.path)
    unet = PARTS["unet"].inferred("unet", checkpoint)
    parts = PARTS
    if unet["image_cross_attention"]:
        # Only VideoCrafter1 can be pooled: tokens of DynamiCrafter are of one frame each.
        is_pooled = f"{_PROJECTOR}proj.weight" in checkpoint.shapes and unet["in_channels"] == 4
        parts = PARTS | (POOLED_IMAGE_PARTS if is_pooled else _IMAGE_PARTS)
    parts = with_given(parts, checkpoint)
    configs = {name: part.inferred(name, checkpoint) for name, part in parts.items()}
    chosen = chosen_variant(unet, checkpoint, variant, given)
    size = [length // _PIXELS for length in chosen.size]
    configs["unet"] |= {"sample_size": size, "default_fps": chosen.default_fps}
    configs["scheduler"] = {
        key: value
        for key, value in VideoCrafterDDIMScheduler(**chosen.scheduler).config.items()
        if not key.startswith("_")
    }
    configs = plan.settled(configs, given, place=place)
    check_widths(parts, configs, checkpoint)
    networks = {name: part.network(name, configs[name], checkpoint) for name, part in parts.items()}
    try:
        scheduler = VideoCrafterDDIMScheduler(**configs["scheduler"])
    except (TypeError, ValueError, RuntimeError, ArithmeticError) as error:
        raise ModelError(
            f"{place}: the scheduler cannot be made: {error}", "check what `--set scheduler...` says"
        ) from error
    used = {name for network in networks.values() for o in network.origins.values() for name in o.names}
    depth, encoders = configs["text_encoder"]["num_hidden_layers"], checkpoint.parts & ENCODERS.keys()
    return plan.Conversion(
        variant=chosen.name,
        pipeline=chosen.pipeline,
        networks=networks,
        others={"tokenizer": clip_tokenizer(), "scheduler": scheduler},
        ignored=frozenset(n for n in checkpoint.shapes if _is_unused(n, depth, encoders)) - used,
    )


def _is_unused(name: str, depth: int, given: Set[str]) -> bool:
    """Whether it is a tensor of the originals that nothing here needs.

    depth: blocks of our text encoder. given: encoders that were given, which go before the checkpoint's own
    and may hold more.
    """
    if name in _BUFFERS or name == f"{VISION}proj":
        return True
    if name.startswith(tuple(start for encoder in given for start in (f"{encoder}:", ENCODERS[encoder]))):
        return True
    if name.startswith(WHOLE_CLIP):  # CLIP as a whole, whose text tower the image encoder does not need
        inner, depth = name.removeprefix(WHOLE_CLIP), 0
        return inner in (*_OF_TEXT, *keys.CLIP_TEXT.values()) or _is_block_beyond(inner, depth)
    inner = name.removeprefix(TEXT)
    return inner != name and (inner in _OF_TEXT or _is_block_beyond(inner, depth))


def _is_block_beyond(name: str, depth: int) -> bool:
    """Whether it is of a block of a text tower behind the last that is used: "penultimate" leaves one."""
    block = _BLOCK.match(name)
    return block is not None and int(block[1]) >= depth and keys.is_block_tensor(block[2])


@cache  # a second to build
def clip_tokenizer() -> CLIPTokenizer:
    """Return the tokenizer of 49,408 tokens, each time the same one.

    It pads with token 0, "!", where OpenAI's pads with the end.
    """
    lines = gzip.decompress(_MERGES.read_bytes()).decode().splitlines()
    merges = [(left, right) for left, right in (line.split(" ") for line in lines)]
    # GPT-2's letter for each byte, in the order of the first tokens.
    alphabet = list(bytes_to_unicode().values())
    joined = [left + right for left, right in merges]
    tokens = [*alphabet, *(c + "</w>" for c in alphabet), *joined, "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, pad_token="!", model_max_length=77)
