"""Tiny GLM-Image: before the first step a language model draws what the picture is made of."""

from __future__ import annotations

import diffusers
import transformers

from tests.tinies.encoders import TEXT_WIDTH, language_model, t5
from tests.tinies.image import image_autoencoder
from tests.tinies.table import TWO_LAYERS

CODES = 64  # what a place of a picture may be
CHANNELS = 4
_CHAT = (
    "{% for message in messages %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endfor %}"
)


def glm_image() -> diffusers.DiffusionPipeline:
    transformer = diffusers.GlmImageTransformer2DModel(
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        **TWO_LAYERS,
        text_embed_dim=TEXT_WIDTH,
        time_embed_dim=32,
        condition_dim=16,
        prior_vq_quantizer_codebook_size=CODES,
    )
    vae = image_autoencoder()
    vae.register_to_config(latents_mean=[0.0] * CHANNELS, latents_std=[0.7] * CHANNELS)
    return diffusers.GlmImagePipeline(
        tokenizer=transformers.ByT5Tokenizer(),
        processor=_processor(),
        text_encoder=t5(),
        vision_language_encoder=_language_model(),
        vae=vae,
        transformer=transformer,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(
            use_dynamic_shifting=True, base_shift=0.25, max_shift=0.75
        ),
    )


def _processor() -> transformers.GlmImageProcessor:
    marks = {"image_token": "<image>", "grid_bos_token": "<grid>", "grid_eos_token": "</grid>"}
    tokenizer = transformers.ByT5Tokenizer(extra_special_tokens=marks, bos_token="<start>")
    pictures = transformers.GlmImageImageProcessorPil(
        patch_size=16, merge_size=1, min_pixels=32 * 32, max_pixels=64 * 64
    )
    return transformers.GlmImageProcessor(pictures, tokenizer, chat_template=_CHAT)


def _language_model() -> transformers.GlmImageForConditionalGeneration:
    text = language_model(
        1,
        vocab_size=512,
        vision_vocab_size=CODES,
        eos_token_id=500,  # never drawn: a picture would end before it is whole
        pad_token_id=0,
        rope_parameters={"rope_type": "default", "rope_theta": 1e4, "mrope_section": [4, 2, 2]},
    )
    sight = {"depth": 1, "hidden_size": 32, "num_heads": 2, "intermediate_size": 64, "image_size": 64}
    codes = {"embed_dim": 16, "num_embeddings": CODES, "latent_channels": 32}
    config = transformers.GlmImageConfig(
        text_config=text,
        vision_config=sight,
        vq_config=codes,
        image_token_id=_processor().image_token_id,
        image_start_token_id=CODES - 2,
        image_end_token_id=CODES - 1,
    )
    return transformers.GlmImageForConditionalGeneration(config)
