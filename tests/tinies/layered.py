"""Tiny Qwen-Image-Layered, which takes an image apart: layers with alpha."""

from __future__ import annotations

import diffusers
from transformers import ByT5Tokenizer, PaddleOCRVLProcessor, Qwen2VLImageProcessorPil

from tests.tinies.encoders import TEXT_WIDTH, qwen
from tests.tinies.table import ONE_LAYER


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
