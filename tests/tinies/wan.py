"""Tiny Wan pipelines: 2.1 and 2.2; from text, from a picture, from a clip."""

from __future__ import annotations

from typing import Any

import diffusers
from transformers import ByT5Tokenizer

from tests.random_weights import byte_text_encoder, flow_scheduler
from tests.tinies.encoders import IMAGE_WIDTH, TEXT_WIDTH, image_processor, vision
from tests.tinies.table import FRAMES_5, HEADS, IMAGE, LARGER, Tinies, of

CHANNELS = 4  # of the latents
CONDITIONED = (
    3 * CHANNELS
)  # beside them a mask of four, one for each frame of a latent, and the picture's latents


def wan() -> diffusers.DiffusionPipeline:
    return diffusers.WanPipeline(**wan_parts(), transformer=_transformer())


def wan_moe() -> diffusers.DiffusionPipeline:
    return diffusers.WanPipeline(
        **wan_parts(), transformer=_transformer(), transformer_2=_transformer(), boundary_ratio=0.875
    )


def wan_known() -> diffusers.DiffusionPipeline:
    """A tiny one that the preset of Wan 2.1 1.3B takes for its own: as many layers and latent channels."""
    return diffusers.WanPipeline(
        **wan_parts(channels=16), transformer=_transformer(channels=16, num_layers=30)
    )


def wan_ti2v() -> diffusers.DiffusionPipeline:
    """Wan 2.2 5B's kind: an autoencoder of 16 pixels to a latent, a timestep for each token."""
    return diffusers.WanPipeline(**_ti2v_parts())


def wan_i2v() -> diffusers.DiffusionPipeline:
    """Wan 2.1's kind: the picture's latents beside the noise, and its CLIP embedding beside the text."""
    return diffusers.WanImageToVideoPipeline(
        **wan_parts(),
        transformer=_transformer(in_channels=CONDITIONED, image_dim=IMAGE_WIDTH, added_kv_proj_dim=32),
        image_encoder=vision(image_size=32, patch_size=8),
        image_processor=image_processor(image_size=32),
    )


def wan_i2v_moe() -> diffusers.DiffusionPipeline:
    """Wan 2.2 A14B's kind: two transformers, and the picture's latents only."""
    return diffusers.WanImageToVideoPipeline(
        **wan_parts(),
        transformer=_transformer(in_channels=CONDITIONED),
        transformer_2=_transformer(in_channels=CONDITIONED),
        boundary_ratio=0.9,
    )


def wan_vace() -> diffusers.DiffusionPipeline:
    transformer = diffusers.WanVACETransformer3DModel(
        **network_sizes(),
        vace_layers=[0, 1],
        vace_in_channels=2 * CHANNELS + 8 * 8,  # two clips, and a mask
    )
    return diffusers.WanVACEPipeline(**wan_parts(), transformer=transformer)


def wan_animate() -> diffusers.DiffusionPipeline:
    """Wan 2.2 Animate's kind: a picture moves as one clip's poses and another's face do."""
    transformer = diffusers.WanAnimateTransformer3DModel(
        **network_sizes(in_channels=CONDITIONED),
        latent_channels=CHANNELS,
        image_dim=IMAGE_WIDTH,
        motion_encoder_channel_sizes={"4": 8, "8": 8, "16": 8},
        motion_encoder_size=16,
        motion_style_dim=8,
        motion_dim=4,
        motion_encoder_dim=32,
        face_encoder_hidden_dim=16,
        face_encoder_num_heads=2,
        inject_face_latents_blocks=1,
    )
    return diffusers.WanAnimatePipeline(
        **wan_parts(),
        transformer=transformer,
        image_encoder=vision(image_size=32, patch_size=8),
        image_processor=image_processor(image_size=32),
    )


def lucy() -> diffusers.DiffusionPipeline:
    return diffusers.LucyEditPipeline(**wan_parts(), transformer=_transformer(in_channels=2 * CHANNELS))


def wan_parts(*, channels: int = CHANNELS) -> dict[str, Any]:
    vae = diffusers.AutoencoderKLWan(**_autoencoder_settings(channels), dim_mult=[1, 1, 1, 1])
    return _text_parts() | {"vae": vae}


def _ti2v_parts() -> dict[str, Any]:
    vae = diffusers.AutoencoderKLWan(
        **_autoencoder_settings(48),
        dim_mult=[1, 1, 1, 1],
        decoder_base_dim=4,
        is_residual=True,
        in_channels=12,
        out_channels=12,
        patch_size=2,
        scale_factor_spatial=16,
    )
    transformer = _transformer(channels=48)
    return _text_parts() | {"vae": vae, "transformer": transformer, "expand_timesteps": True}


def _autoencoder_settings(channels: int) -> dict[str, Any]:
    return {
        "base_dim": 4,
        "z_dim": channels,
        "num_res_blocks": 1,
        "latents_mean": [0.0] * channels,
        "latents_std": [1.0] * channels,
    }


def _text_parts() -> dict[str, Any]:
    return {
        "tokenizer": ByT5Tokenizer(),
        "text_encoder": byte_text_encoder(TEXT_WIDTH),
        "scheduler": flow_scheduler(),
    }


def _transformer(
    *, channels: int = CHANNELS, num_layers: int = 2, in_channels: int | None = None, **settings: Any
) -> diffusers.WanTransformer3DModel:
    sizes = network_sizes(channels=channels, num_layers=num_layers, in_channels=in_channels)
    return diffusers.WanTransformer3DModel(**sizes, **settings)


def network_sizes(
    *, channels: int = CHANNELS, num_layers: int = 2, in_channels: int | None = None
) -> dict[str, Any]:
    return {
        **HEADS,
        "in_channels": in_channels or channels,
        "out_channels": channels,
        "text_dim": TEXT_WIDTH,
        "freq_dim": 32,
        "ffn_dim": 64,
        "num_layers": num_layers,
    }


_SHORT = FRAMES_5 | {"max_sequence_length": 32}  # of 512 tokens, its own, attention takes a third of a call
TINIES: Tinies = {
    "wan": (wan, _SHORT, ()),
    "wan_moe": (wan_moe, _SHORT, ()),
    "wan_ti2v": (wan_ti2v, _SHORT | LARGER, ()),
    # The same weights as Wan 2.2 5B's, started from a picture.
    "wan_ti2v_image": of("WanImageToVideoPipeline", _ti2v_parts, _SHORT | LARGER, "image"),
    # How much of a prompt it reads is fixed, see rows/tables/limits.py.
    "wan_i2v": (wan_i2v, FRAMES_5 | {"max_sequence_length": 512}, ("image",)),
    "wan_i2v_moe": (wan_i2v_moe, _SHORT, ("image",)),
    "wan_v2v": (
        lambda: diffusers.WanVideoToVideoPipeline(**wan_parts(), transformer=_transformer()),
        IMAGE | {"strength": 0.8, "max_sequence_length": 32},
        {"video": 5},
    ),
    "wan_vace": (wan_vace, _SHORT, ()),
    "wan_animate": (
        wan_animate,
        IMAGE | {"segment_frame_length": 9, "max_sequence_length": 512},
        {"image": 1, "pose_video": 9, "face_video": 9},
    ),
    "lucy": (lucy, _SHORT, {"video": 5}),
}
