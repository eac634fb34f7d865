"""The networks of VideoCrafter and DynamiCrafter: where checkpoints have them, and how they become ours.

For a checkpoint without encoders they are given: a file or a folder of CLIP, of one tower or both, with
open_clip's or transformers' names, whatever stands before these. So another checkpoint of these models will
do, and Stable Diffusion 2's text encoder.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from diffusers import AutoencoderKL
from torch import Tensor
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    CLIPVisionModelWithProjection,
)

from framefleet.pipeline.errors import ModelError
from framefleet.pipeline.text import setting
from framefleet.plugins.ports.conversion.checkpoint import Checkpoint
from framefleet.plugins.ports.conversion.plan import Config, NetworkPart, count_below, same_names
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


_Shapes = Mapping[str, Tensor]

ENCODERS = {"text_encoder": TEXT, "image_encoder": VISION}  # where checkpoints have those that may be given
_WHERE = "CLIP ViT-H-14 holds both, as in laion/CLIP-ViT-H-14-laion2B-s32B-b79K"
# What the name of a tensor ends with that a tower has once, in transformers and in open_clip.
_ENDS = {
    "text_encoder": ("embeddings.token_embedding.weight", "token_embedding.weight"),
    "image_encoder": ("embeddings.class_embedding", "class_embedding"),
}
_DEPTH = 23  # blocks of ViT-H-14's text tower that are used; Stable Diffusion 2 ships no more


def with_given(parts: Mapping[str, NetworkPart], checkpoint: Checkpoint) -> dict[str, NetworkPart]:
    """Return the parts of a checkpoint, with those that are given for it in their place.

    Raises ModelError with the encoders that it lacks, and for what is given and is none.
    """
    encoders = [name for name in ENCODERS if name in parts]
    lacking = [n for n in encoders if n not in checkpoint.parts and not checkpoint.below(ENCODERS[n])]
    if lacking:
        names = " and ".join(f"{name} ({ENCODERS[name]}*)" for name in lacking)
        raise ModelError(
            f"{checkpoint.path} holds no {names}",
            f"it may be pruned: add {' '.join(setting(name, 'DIR') for name in lacking)}; {_WHERE}",
        )
    own = {name: _part_of(name, parts[name], checkpoint) for name in encoders if name in checkpoint.parts}
    return {**parts, **own}


def check_widths(
    parts: Mapping[str, NetworkPart], configs: Mapping[str, Config], checkpoint: Checkpoint
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


def _part_of(component: str, part: NetworkPart, checkpoint: Checkpoint) -> NetworkPart:
    """Return how a component becomes ours, of what is given for it. Raises ModelError where it is none."""
    of_transformers, of_open_clip = _ENDS[component]
    names = [name for name in checkpoint.shapes if name.startswith(f"{component}:")]
    for name in sorted(names, key=lambda n: (len(n), n)):  # of several, the one that is not in a folder
        if name.endswith(of_transformers) and not _is_pooled(part):
            config = _text_config if component == "text_encoder" else _vision_config
            return replace(part, prefix=name.removesuffix(of_transformers), config=config, origins=same_names)
        if name.endswith(of_open_clip) and not name.endswith(of_transformers):
            return replace(part, prefix=name.removesuffix(of_open_clip))
    libraries = "open_clip" if _is_pooled(part) else "open_clip or transformers"
    raise ModelError(
        f"--set {component}: what it names holds no {component} of CLIP, as {libraries} has it", _WHERE
    )


def _is_pooled(part: NetworkPart) -> bool:
    return part.make is POOLED_IMAGE_PARTS["image_encoder"].make


def _text_config(shapes: _Shapes) -> dict[str, Any]:
    """Return the arguments of CLIPTextConfig for transformers' names."""
    depth = min(count_below(shapes, "encoder.layers."), _DEPTH)
    return {**keys.text_config(_renamed(shapes)), "num_hidden_layers": depth}


def _vision_config(shapes: _Shapes) -> dict[str, Any]:
    """Return the arguments of CLIPVisionConfig for transformers' names."""
    return keys.vision_config(_renamed(shapes))


def _renamed(shapes: _Shapes) -> dict[str, Tensor]:
    """Return the shapes by open_clip's names, but for the queries, keys and values that it keeps as one."""
    top = {ours: theirs for ours, theirs in (keys.CLIP_TEXT | keys.CLIP_VISION).items() if ours in shapes}
    renamed = {theirs: shapes[ours] for ours, theirs in top.items()}
    for name, shape in shapes.items():
        if block := re.match(r"encoder\.layers\.(\d+)\.(.+)\.(weight|bias)$", name):
            part = keys.CLIP_BLOCK.get(block[2], block[2])
            renamed[f"transformer.resblocks.{block[1]}.{part}.{block[3]}"] = shape
    return renamed
