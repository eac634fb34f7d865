"""Tiny Wan pipelines, 2.1 and 2.2, from text, picture or clip; and what grew from it: AnyFlow, SkyReels."""

from __future__ import annotations

from typing import Any

import diffusers
from transformers import ByT5Tokenizer, CLIPVisionConfig, CLIPVisionModel

from tests.random_weights import byte_text_encoder, flow_scheduler
from tests.tinies.encoders import IMAGE_WIDTH, TEXT_WIDTH, image_processor, projected_vision, vision
from tests.tinies.table import FRAMES_5, FRAMES_9, HEADS, IMAGE, LARGER, TWO_LAYERS, Tinies, modular_of, of

CHANNELS = 4  # of the latents
# Beside them a mask of four, one for each frame of a latent, and the picture's latents.
CONDITIONED = 3 * CHANNELS


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
    transformer = _transformer(in_channels=CONDITIONED, image_dim=IMAGE_WIDTH, added_kv_proj_dim=32)
    return diffusers.WanImageToVideoPipeline(**_sighted_parts(), transformer=transformer)


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
    return diffusers.WanAnimatePipeline(**_sighted_parts(), transformer=transformer)


def lucy() -> diffusers.DiffusionPipeline:
    return diffusers.LucyEditPipeline(**wan_parts(), transformer=_transformer(in_channels=2 * CHANNELS))


def wan_parts(*, channels: int = CHANNELS) -> dict[str, Any]:
    vae = diffusers.AutoencoderKLWan(**_autoencoder_settings(channels), dim_mult=[1, 1, 1, 1])
    return _text_parts() | {"vae": vae}


def _sighted_parts() -> dict[str, Any]:
    """Return those of Wan and what reads a picture as CLIP does."""
    sight = {"image_encoder": vision(image_size=32, patch_size=8)}
    return wan_parts() | sight | {"image_processor": image_processor(image_size=32)}


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


def anyflow() -> diffusers.DiffusionPipeline:
    return diffusers.AnyFlowPipeline(
        **_flow_map_parts(), transformer=diffusers.AnyFlowTransformer3DModel(**network_sizes())
    )


def anyflow_far() -> diffusers.DiffusionPipeline:
    """Renders chunk after chunk: the first of one latent frame, then of the next two."""
    transformer = diffusers.AnyFlowFARTransformer3DModel(
        **network_sizes(), chunk_partition=(1, 2), full_chunk_limit=2
    )
    return diffusers.AnyFlowFARPipeline(**_flow_map_parts(), transformer=transformer)


def chronoedit() -> diffusers.DiffusionPipeline:
    """An image edited as the end of a clip that begins with it."""
    transformer = diffusers.ChronoEditTransformer3DModel(
        **network_sizes(in_channels=CONDITIONED), image_dim=IMAGE_WIDTH, added_kv_proj_dim=32
    )
    parts = _sighted_parts() | {"scheduler": diffusers.FlowMatchEulerDiscreteScheduler(shift=5.0)}
    return diffusers.ChronoEditPipeline(**parts, transformer=transformer)


def _flow_map_parts() -> dict[str, Any]:
    return wan_parts() | {"scheduler": diffusers.FlowMapEulerDiscreteScheduler(shift=5.0)}


def skyreels_i2v() -> diffusers.DiffusionPipeline:
    return diffusers.SkyReelsV2ImageToVideoPipeline(
        **_skyreels_parts(in_channels=CONDITIONED, image_dim=IMAGE_WIDTH, added_kv_proj_dim=32),
        image_encoder=projected_vision(image_size=32, patch_size=8),
        image_processor=image_processor(image_size=32),
    )


def _skyreels_parts(**settings: Any) -> dict[str, Any]:
    return wan_parts() | {"transformer": _skyreels(**settings)}


def _skyreels_forced() -> dict[str, Any]:
    return _skyreels_parts(inject_sample_info=True)  # the rate is told to the network


def _skyreels(**settings: Any) -> diffusers.SkyReelsV2Transformer3DModel:
    given: dict[str, Any] = {"in_channels": CHANNELS}
    return diffusers.SkyReelsV2Transformer3DModel(
        **TWO_LAYERS,
        out_channels=CHANNELS,
        text_dim=TEXT_WIDTH,
        freq_dim=32,
        ffn_dim=64,
        **{**given, **settings},
    )


_LONGER = FRAMES_9 | {"num_frames": 17, "base_num_frames": 9, "overlap_history": 5}


ANIMATE_CHANNELS = 16  # of latents: what the transformer takes besides them is fixed to 20 more
SIGHT_WIDTH, SIGHT_SIZE = 1280, 224  # fixed too


def wan_animate_2() -> diffusers.ModularPipeline:
    transformer = diffusers.WanAnimate2Transformer3DModel(
        in_dim=2 * ANIMATE_CHANNELS + 4,
        out_dim=ANIMATE_CHANNELS,
        dim=24,
        ffn_dim=32,
        freq_dim=16,
        text_dim=TEXT_WIDTH,
        num_heads=2,
        num_layers=2,
    )
    sight = CLIPVisionConfig(
        hidden_size=SIGHT_WIDTH,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=SIGHT_SIZE,
        patch_size=SIGHT_SIZE // 2,
    )
    return modular_of(
        diffusers.WanAnimate2ModularPipeline,
        {
            **wan_parts(channels=ANIMATE_CHANNELS),
            # Its steps are given a generator.
            "scheduler": diffusers.FlowMatchEulerDiscreteScheduler(shift=5.0),
            "transformer": transformer,
            "image_encoder": CLIPVisionModel(sight),
        },
    )


TINIES: Tinies = {
    "wan": (wan, _SHORT, ()),
    "wan_moe": (wan_moe, _SHORT, ()),
    "wan_ti2v": (wan_ti2v, _SHORT | LARGER, ()),
    # The same weights as Wan 2.2 5B's, started from a picture.
    "wan_ti2v_image": of("WanImageToVideoPipeline", _ti2v_parts, _SHORT | LARGER, "image"),
    # How much of a prompt it reads is fixed, see rows/tables/limits.py.
    "wan_i2v": (wan_i2v, FRAMES_5 | {"max_sequence_length": 512}, ("image",)),
    "wan_i2v_moe": (wan_i2v_moe, _SHORT, ("image",)),
    "wan_v2v": of(
        "WanVideoToVideoPipeline", wan, IMAGE | {"strength": 0.8, "max_sequence_length": 32}, video=5
    ),
    "wan_vace": (wan_vace, _SHORT, ()),
    "wan_animate": (
        wan_animate,
        IMAGE | {"segment_frame_length": 9, "max_sequence_length": 512},
        {"image": 1, "pose_video": 9, "face_video": 9},
    ),
    "lucy": (lucy, _SHORT, {"video": 5}),
    "skyreels": of("SkyReelsV2Pipeline", _skyreels_parts, FRAMES_5),
    "skyreels_i2v": (skyreels_i2v, FRAMES_5 | {"max_sequence_length": 512}, ("image",)),
    "skyreels_df": of("SkyReelsV2DiffusionForcingPipeline", _skyreels_forced, FRAMES_9),
    "skyreels_df_i2v": of(
        "SkyReelsV2DiffusionForcingImageToVideoPipeline", _skyreels_forced, FRAMES_9, "image"
    ),
    "skyreels_df_v2v": of(
        "SkyReelsV2DiffusionForcingVideoToVideoPipeline", _skyreels_forced, _LONGER, video=9
    ),
}
