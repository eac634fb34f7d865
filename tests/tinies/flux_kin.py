"""Tiny pipelines around Flux: edits, Chroma, Bria, Ovis-Image, FLUX.2, Klein, ERNIE, FLUX.3."""

from __future__ import annotations

from typing import Any

import diffusers
from transformers import ByT5Tokenizer, Qwen3_5Config, Qwen3_5ForConditionalGeneration

from tests.tinies import encoders
from tests.tinies.encoders import TEXT_WIDTH, chat_tokenizer, clip, clip_tokenizer, mistral3, qwen3, t5
from tests.tinies.image import image_autoencoder
from tests.tinies.table import (
    CHAT,
    CONTROLLED,
    FILLED,
    LARGER,
    MASKED,
    ONE_OF_EACH,
    REDRAWN,
    Tinies,
    modular_of,
    of,
)

PACKED = 16  # four latent channels in 2 x 2 patches
BLOCKS: dict[str, Any] = ONE_OF_EACH | {"joint_attention_dim": TEXT_WIDTH}
# The masked picture's latents, and the mask of every pixel: 8 x 8 for each latent.
_FILLED = {"in_channels": 2 * PACKED + 2 * 2 * 64, "out_channels": PACKED}
_KONTEXT = LARGER | {"max_area": 1024, "_auto_resize": False}


def flux() -> diffusers.DiffusionPipeline:
    return diffusers.FluxPipeline(**flux_parts())


def _flux_controlled() -> dict[str, Any]:
    controlnet = diffusers.FluxControlNetModel(
        **BLOCKS, in_channels=PACKED, pooled_projection_dim=TEXT_WIDTH, axes_dims_rope=[4, 6, 6]
    )
    return flux_parts() | {"controlnet": controlnet}


def _beside() -> dict[str, Any]:
    """The picture's latents beside the noise."""
    return flux_parts(in_channels=2 * PACKED, out_channels=PACKED)


def flux_parts(**settings: Any) -> dict[str, Any]:
    given: dict[str, Any] = {"in_channels": PACKED, "guidance_embeds": True}
    return {
        "tokenizer": clip_tokenizer(),
        "text_encoder": clip(),
        "tokenizer_2": ByT5Tokenizer(),
        "text_encoder_2": t5(),
        "vae": image_autoencoder(),
        "transformer": diffusers.FluxTransformer2DModel(
            **BLOCKS, **{**given, **settings}, pooled_projection_dim=TEXT_WIDTH, axes_dims_rope=(4, 6, 6)
        ),
        "scheduler": diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift=3.0),
    }


def _chroma_parts() -> dict[str, Any]:
    transformer = diffusers.ChromaTransformer2DModel(
        **BLOCKS,
        in_channels=PACKED,
        axes_dims_rope=(4, 6, 6),
        approximator_num_channels=16,
        approximator_hidden_dim=32,
        approximator_layers=1,
    )
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    return encoders.byte_parts(t5(), image_autoencoder(), transformer, scheduler)


def _bria_parts() -> dict[str, Any]:
    transformer = diffusers.BriaTransformer2DModel(**BLOCKS, in_channels=PACKED, axes_dims_rope=[0, 8, 8])
    return _chroma_parts() | {"transformer": transformer}


def ovis() -> diffusers.DiffusionPipeline:
    transformer = diffusers.OvisImageTransformer2DModel(
        **BLOCKS, in_channels=PACKED, out_channels=PACKED, axes_dims_rope=(4, 6, 6)
    )
    return diffusers.OvisImagePipeline(
        tokenizer=chat_tokenizer(),
        text_encoder=qwen3(num_layers=2).model,
        vae=image_autoencoder(),
        transformer=transformer,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
    )


CHANNELS = 4
READ_LAYERS, TEXT_LAYERS = 8, 33  # the pipeline stacks eight hidden states, the last of them that of layer 32


def flux3() -> diffusers.ModularPipeline:
    return modular_of(diffusers.Flux3ModularPipeline, _parts(flow_map=False))


def flux3_distilled() -> diffusers.ModularPipeline:
    return modular_of(diffusers.Flux3DistilledModularPipeline, _parts(flow_map=True))


def _parts(*, flow_map: bool) -> dict[str, Any]:
    transformer = diffusers.Flux3Transformer2DModel(
        in_channels=4 * CHANNELS,
        cond_in_channels=4 * CHANNELS,
        **ONE_OF_EACH,
        joint_attention_dim=READ_LAYERS * encoders.TEXT_WIDTH,
        timestep_channels=16,
        axes_dims_rope=(4, 4, 4, 4),
        flow_map=flow_map,
    )
    vae = diffusers.AutoencoderKLFlux2(
        block_out_channels=(4, 4),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        layers_per_block=1,
        latent_channels=CHANNELS,
        norm_num_groups=2,
    )
    return {
        "prompt_upsampler": _upsampler(),
        "prompt_upsampler_processor": encoders.sight_processor(),
        "text_encoder": encoders.qwen3_vl(num_layers=TEXT_LAYERS),
        "tokenizer": encoders.sight_processor(),
        "vae": vae,
        "transformer": transformer,
        "scheduler": diffusers.FlowMatchEulerDiscreteScheduler(),
    }


def _upsampler() -> Qwen3_5ForConditionalGeneration:
    text = {
        "vocab_size": 259,  # bytes, and marks that are never decoded
        "hidden_size": encoders.TEXT_WIDTH,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 8,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 2,
        "layer_types": ["linear_attention", "full_attention"],
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 1e4,
            "partial_rotary_factor": 0.5,
            "mrope_section": [1, 1, 2],
        },
    }
    sight = {"depth": 1, "hidden_size": 32, "num_heads": 2, "intermediate_size": 32, "out_hidden_size": 32}
    sight |= {"patch_size": encoders.PATCH, "num_position_embeddings": 16}
    return Qwen3_5ForConditionalGeneration(
        Qwen3_5Config(text_config=text, vision_config=sight, image_token_id=encoders.PICTURE_ID)
    )


def flux2() -> diffusers.DiffusionPipeline:
    return diffusers.Flux2Pipeline(
        **_flux2_parts(guidance_embeds=True), tokenizer=chat_tokenizer(), text_encoder=mistral3(num_layers=31)
    )


def flux2_klein() -> dict[str, Any]:
    text = {"tokenizer": chat_tokenizer(), "text_encoder": qwen3(num_layers=28)}
    return _flux2_parts(guidance_embeds=False) | text | {"is_distilled": True}


def flux2_klein_base() -> dict[str, Any]:
    return flux2_klein() | {"is_distilled": False}


def _flux2_parts(*, guidance_embeds: bool) -> dict[str, Any]:
    transformer = diffusers.Flux2Transformer2DModel(
        in_channels=PACKED,
        **ONE_OF_EACH,
        joint_attention_dim=3 * TEXT_WIDTH,  # three of the encoder's layers side by side
        timestep_guidance_channels=32,
        axes_dims_rope=(4, 4, 4, 4),
        guidance_embeds=guidance_embeds,
    )
    return {
        "vae": flux2_autoencoder(),
        "transformer": transformer,
        "scheduler": diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift=3.0),
    }


def ernie() -> diffusers.DiffusionPipeline:
    transformer = diffusers.ErnieImageTransformer2DModel(
        hidden_size=32,
        num_attention_heads=2,
        num_layers=2,
        ffn_hidden_size=64,
        in_channels=PACKED,
        out_channels=PACKED,
        text_in_dim=TEXT_WIDTH,
        rope_axes_dim=(4, 6, 6),
    )
    return diffusers.ErnieImagePipeline(
        transformer=transformer,
        vae=flux2_autoencoder(),
        tokenizer=chat_tokenizer(),
        text_encoder=mistral3(num_layers=2).model,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
    )


def flux2_autoencoder() -> diffusers.AutoencoderKLFlux2:
    return diffusers.AutoencoderKLFlux2(
        block_out_channels=(8, 8, 8, 8),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=2,
        sample_size=64,
    )


TINIES: Tinies = {
    # Distilled: guidance is no input of its network.
    "flux_schnell": of("FluxPipeline", lambda: flux_parts(guidance_embeds=False), LARGER),
    "flux_img2img": of("FluxImg2ImgPipeline", flux_parts, LARGER | REDRAWN, "image"),
    "flux_inpaint": of("FluxInpaintPipeline", flux_parts, LARGER | REDRAWN, *MASKED),
    "flux_kontext": of("FluxKontextPipeline", flux_parts, _KONTEXT, "image"),
    "flux_fill": of("FluxFillPipeline", lambda: flux_parts(**_FILLED), LARGER, *MASKED),
    "flux_control": of("FluxControlPipeline", _beside, LARGER, "control_image"),
    "flux_control_img2img": of("FluxControlImg2ImgPipeline", _beside, LARGER | REDRAWN, *CONTROLLED),
    "chroma": of("ChromaPipeline", _chroma_parts, LARGER),
    "chroma_img2img": of("ChromaImg2ImgPipeline", _chroma_parts, LARGER | REDRAWN, "image"),
    "bria": of("BriaPipeline", _bria_parts, LARGER),
    "ovis": (ovis, CHAT, ()),
    "flux_control_inpaint": of("FluxControlInpaintPipeline", _beside, LARGER | REDRAWN, *FILLED),
    "flux_controlnet": of("FluxControlNetPipeline", _flux_controlled, LARGER, "control_image"),
    "flux_controlnet_img2img": of(
        "FluxControlNetImg2ImgPipeline", _flux_controlled, LARGER | REDRAWN, *CONTROLLED
    ),
    "flux_controlnet_inpaint": of(
        "FluxControlNetInpaintPipeline", _flux_controlled, LARGER | REDRAWN, *FILLED
    ),
    "flux_kontext_inpaint": of("FluxKontextInpaintPipeline", flux_parts, _KONTEXT, *MASKED),
    "flux2": (flux2, CHAT, ()),
    "flux2_klein": of("Flux2KleinPipeline", flux2_klein, CHAT),
    "flux2_klein_base": of("Flux2KleinPipeline", flux2_klein_base, CHAT),
    "flux2_klein_inpaint": of(
        "Flux2KleinInpaintPipeline", flux2_klein_base, REDRAWN | {"max_sequence_length": 256}, *MASKED
    ),
    "ernie": (ernie, LARGER, ()),
    # Keys and values of the given picture are computed in the first step alone.
    "flux2_klein_kv": of("Flux2KleinKVPipeline", flux2_klein, CHAT),
}
