"""Tiny pipelines of Qwen-Image, its edits and layers, 2.1, and what is made of its parts: Krea 2, LongCat."""

from __future__ import annotations

from typing import Any

import diffusers
from transformers import ByT5Tokenizer, PaddleOCRVLProcessor, Qwen2VLImageProcessorPil

from tests.tinies.encoders import (
    TEXT_WIDTH,
    qwen,
    qwen3_vl,
    sight_processor,
    sight_tokenizer,
    template_tokenizer,
)
from tests.tinies.image import image_autoencoder
from tests.tinies.table import CHAT, LARGER, LARGEST, MASKED, ONE_LAYER, ONE_OF_EACH, TWO_LAYERS, Tinies, of

PACKED = 16  # four latent channels in 2 x 2 patches


def _controlled(**settings: Any) -> dict[str, Any]:
    return _parts() | {"controlnet": diffusers.QwenImageControlNetModel(**_BLOCKS, **settings)}


def edit_parts() -> dict[str, Any]:
    """It takes pictures at a megapixel, whatever is rendered: 64 pixels to a token keep that small."""
    return _parts() | {"vae": autoencoder(levels=6), "processor": sight_processor()}


_BLOCKS: dict[str, Any] = {
    "in_channels": PACKED,
    "out_channels": 4,
    **TWO_LAYERS,
    "joint_attention_dim": TEXT_WIDTH,
    "axes_dims_rope": (4, 6, 6),
}


def _parts() -> dict[str, Any]:
    transformer = diffusers.QwenImageTransformer2DModel(**_BLOCKS)
    return {
        "vae": autoencoder(),
        "text_encoder": qwen(),
        "tokenizer": sight_tokenizer(),
        "transformer": transformer,
        "scheduler": _scheduler(),
    }


def krea2_deep() -> dict[str, Any]:
    """With an encoder of as many layers as the published one: of a modular pipeline they cannot be chosen."""
    return _krea2_parts((2, 5, 8, 11, 14, 17, 20, 23, 26, 29, 32, 35))


def _krea2_parts(layers: tuple[int, ...] = (1, 2, 3)) -> dict[str, Any]:
    transformer = diffusers.Krea2Transformer2DModel(
        in_channels=PACKED,
        **TWO_LAYERS,
        num_key_value_heads=1,
        intermediate_size=64,
        timestep_embed_dim=32,
        text_hidden_dim=TEXT_WIDTH,
        num_text_layers=len(layers),
        text_num_attention_heads=2,
        text_num_key_value_heads=1,
        text_intermediate_size=64,
        num_layerwise_text_blocks=1,
        num_refiner_text_blocks=1,
        axes_dims_rope=(4, 6, 6),
    )
    return {
        "vae": autoencoder(),
        "text_encoder": qwen3_vl(num_layers=layers[-1]).model,
        "tokenizer": sight_tokenizer(),
        "transformer": transformer,
        "scheduler": _scheduler(),
        "text_encoder_select_layers": layers,
    }


def nucleus() -> diffusers.DiffusionPipeline:
    transformer = diffusers.NucleusMoEImageTransformer2DModel(
        in_channels=PACKED,
        out_channels=4,
        num_layers=5,
        attention_head_dim=16,
        num_attention_heads=4,  # narrower ones have dense layers of no width
        joint_attention_dim=TEXT_WIDTH,
        axes_dims_rope=(4, 6, 6),
        num_experts=4,
        moe_intermediate_dim=32,
        capacity_factors=2.0,
    )
    return diffusers.NucleusMoEImagePipeline(
        vae=autoencoder(),
        text_encoder=qwen3_vl(num_layers=9),  # it takes what comes eight before the end
        processor=sight_processor(),
        transformer=transformer,
        scheduler=_scheduler(),
    )


def longcat() -> diffusers.DiffusionPipeline:
    transformer = diffusers.LongCatImageTransformer2DModel(
        **ONE_OF_EACH,
        joint_attention_dim=TEXT_WIDTH,
        pooled_projection_dim=TEXT_WIDTH,
        axes_dims_rope=[4, 6, 6],
    )
    return diffusers.LongCatImagePipeline(
        vae=image_autoencoder(16),  # it takes no other number of channels
        text_encoder=qwen(),
        tokenizer=sight_tokenizer(),
        text_processor=sight_processor(),
        transformer=transformer,
        scheduler=_scheduler(),
    )


def autoencoder(*, levels: int = 4) -> diffusers.AutoencoderKLQwenImage:
    """levels: four make eight pixels to a latent, as in the real one; more are for large pictures."""
    return diffusers.AutoencoderKLQwenImage(
        base_dim=4 if levels == 4 else 2,
        z_dim=4,
        dim_mult=[1] * levels,
        num_res_blocks=1 if levels == 4 else 0,
        temperal_downsample=[False] * (levels - 3) + [True, True],
        latents_mean=[0.0] * 4,
        latents_std=[1.0] * 4,
    )


def _scheduler() -> diffusers.FlowMatchEulerDiscreteScheduler:
    return diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift_terminal=0.02)


CHANNELS = 4  # of the latents


def qwen_image() -> diffusers.DiffusionPipeline:
    autoencoder = diffusers.AutoencoderKLQwenImage(
        base_dim=8,
        z_dim=CHANNELS,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        latents_mean=[0.0] * CHANNELS,
        latents_std=[0.7] * CHANNELS,
    )
    pipe = diffusers.QwenImagePipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift=1.0),
        vae=autoencoder,
        text_encoder=qwen(num_added=100),
        tokenizer=ByT5Tokenizer(),
        transformer=diffusers.QwenImageTransformer2DModel(**_BLOCKS),
    )
    # It cuts its own words off by their number, as many as Qwen's tokenizer makes of them.
    instruction, _, _ = pipe.prompt_template_encode.partition("{}")
    pipe.register_modules(tokenizer=template_tokenizer(instruction, pipe.prompt_template_encode_start_idx))
    return pipe


def qwen_layered() -> diffusers.DiffusionPipeline:
    transformer = diffusers.QwenImageTransformer2DModel(
        in_channels=32,  # eight latent channels in 2 x 2 patches: four would be taken for those of a picture
        out_channels=8,
        **ONE_LAYER,
        joint_attention_dim=TEXT_WIDTH,
        axes_dims_rope=(4, 6, 6),
        use_additional_t_cond=True,
        use_layer3d_rope=True,
    )
    vae = diffusers.AutoencoderKLQwenImage(
        base_dim=2,
        z_dim=8,
        dim_mult=[1] * 5,  # it renders 640 x 640 pixels at least: 32 to a token keep that cheap
        num_res_blocks=0,
        temperal_downsample=[False] * 4,
        input_channels=4,
        latents_mean=[0.0] * 8,
        latents_std=[1.0] * 8,
    )
    # What stands in a picture's place, which the processor asks for.
    tokenizer = ByT5Tokenizer(extra_special_tokens={"image_token": "<extra_id_0>"})
    return diffusers.QwenImageLayeredPipeline(
        tokenizer=tokenizer,
        text_encoder=qwen(),
        # Qwen's own holds a processor of videos too, which cannot be made without torchvision.
        processor=PaddleOCRVLProcessor(Qwen2VLImageProcessorPil(), tokenizer),
        transformer=transformer,
        vae=vae,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
    )


CHANNELS_OF_2_1 = 8  # of the latents: four would be taken for those of a picture


def qwen_2_1() -> diffusers.DiffusionPipeline:
    transformer = diffusers.QwenImage21Transformer2DModel(
        in_channels=CHANNELS_OF_2_1,
        out_channels=CHANNELS_OF_2_1,
        **TWO_LAYERS,
        context_in_dim=TEXT_WIDTH,
        axes_dims_rope=(4, 6, 6),
    )
    vae = diffusers.AutoencoderKLQwenImage21(
        base_dim=4,
        decoder_base_dim=4,
        z_dim=CHANNELS_OF_2_1,
        dim_mult=[1] * 5,  # 16 pixels to a latent, as the pipeline has it
        num_res_blocks=1,
        latents_mean=[0.0] * CHANNELS_OF_2_1,
        latents_std=[0.7] * CHANNELS_OF_2_1,
    )
    return diffusers.QwenImage21Pipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=vae,
        text_encoder=qwen3_vl(num_layers=2),
        processor=sight_processor(),
        transformer=transformer,
    )


TINIES: Tinies = {
    "qwen_img2img": of("QwenImageImg2ImgPipeline", _parts, CHAT | {"strength": 0.5}, "image"),
    "qwen_inpaint": of("QwenImageInpaintPipeline", _parts, CHAT | {"strength": 0.5}, *MASKED),
    "qwen_edit": of("QwenImageEditPipeline", edit_parts, CHAT | LARGEST, "image"),
    "qwen_edit_inpaint": of(
        "QwenImageEditInpaintPipeline", edit_parts, CHAT | LARGEST | {"strength": 0.5}, *MASKED
    ),
    "qwen_edit_plus": of("QwenImageEditPlusPipeline", edit_parts, CHAT | LARGEST, "image"),
    "krea2": of("Krea2Pipeline", lambda: _krea2_parts() | {"is_distilled": False}, CHAT),
    "krea2_turbo": of("Krea2Pipeline", lambda: _krea2_parts() | {"is_distilled": True}, CHAT),
    "nucleus": (nucleus, LARGER | {"max_sequence_length": 1024}, ()),
    "longcat": (longcat, LARGER | {"enable_prompt_rewrite": False}, ()),
    "qwen_controlnet": of("QwenImageControlNetPipeline", _controlled, CHAT, "control_image"),
    "qwen_controlnet_inpaint": of(
        "QwenImageControlNetInpaintPipeline",
        lambda: _controlled(extra_condition_channels=4),  # the mask, packed
        CHAT,
        "control_image",
        "control_mask",
    ),
}
