"""Tiny image pipelines of transformers that read text in their own ways, masked tokens and codes too."""

from __future__ import annotations

from typing import Any

import diffusers
import transformers
from transformers import ByT5Tokenizer

from tests.random_weights import byte_text_encoder
from tests.tinies import encoders
from tests.tinies.encoders import TEXT_WIDTH, byte_parts, clip_tokenizer, language_model, projected_clip, t5
from tests.tinies.image import image_autoencoder
from tests.tinies.table import HEADS, IMAGE, LARGEST, ONE_OF_EACH, REDRAWN, TWO_LAYERS, UNBINNED, Tinies, of


def _pixart_parts() -> dict[str, Any]:
    transformer = diffusers.PixArtTransformer2DModel(
        sample_size=8,
        **TWO_LAYERS,
        cross_attention_dim=32,
        caption_channels=encoders.TEXT_WIDTH,
    )
    return byte_parts(t5(), image_autoencoder(), transformer, diffusers.DPMSolverMultistepScheduler())


def aura_flow() -> diffusers.DiffusionPipeline:
    transformer = diffusers.AuraFlowTransformer2DModel(
        sample_size=8,
        num_mmdit_layers=1,
        num_single_dit_layers=1,
        **HEADS,
        joint_attention_dim=encoders.TEXT_WIDTH,
        caption_projection_dim=32,
        pos_embed_max_size=64,
    )
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=1.73)
    text_encoder = byte_text_encoder(encoders.TEXT_WIDTH)
    return diffusers.AuraFlowPipeline(**byte_parts(text_encoder, image_autoencoder(), transformer, scheduler))


_COGVIEW: dict[str, Any] = {
    "in_channels": 4,
    "out_channels": 4,
    **TWO_LAYERS,
    "text_embed_dim": encoders.TEXT_WIDTH,
    "time_embed_dim": 32,
    "condition_dim": 8,
    "pos_embed_max_size": 16,
    "sample_size": 8,
}


def cogview3() -> diffusers.DiffusionPipeline:
    transformer = diffusers.CogView3PlusTransformer2DModel(**_COGVIEW)
    return diffusers.CogView3PlusPipeline(
        **byte_parts(t5(), image_autoencoder(), transformer, diffusers.CogVideoXDDIMScheduler())
    )


def cogview4() -> diffusers.DiffusionPipeline:
    return diffusers.CogView4Pipeline(**_cogview4_parts(_COGVIEW))


def cogview4_control() -> diffusers.DiffusionPipeline:
    """The picture's latents beside the noise."""
    return diffusers.CogView4ControlPipeline(**_cogview4_parts(_COGVIEW | {"in_channels": 8}))


def _cogview4_parts(sizes: dict[str, Any]) -> dict[str, Any]:
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(
        base_shift=0.25,
        max_shift=0.75,
        base_image_seq_len=256,
        use_dynamic_shifting=True,
        time_shift_type="linear",
    )
    transformer = diffusers.CogView4Transformer2DModel(**sizes)
    return byte_parts(encoders.glm(), image_autoencoder(), transformer, scheduler)


def lumina() -> diffusers.DiffusionPipeline:
    transformer = diffusers.LuminaNextDiT2DModel(
        sample_size=8,
        hidden_size=32,
        num_layers=2,
        num_attention_heads=2,
        num_kv_heads=1,
        multiple_of=16,
        cross_attention_dim=encoders.TEXT_WIDTH,
    )
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    return diffusers.LuminaPipeline(
        **byte_parts(encoders.gemma2(), image_autoencoder(), transformer, scheduler)
    )


def lumina2() -> diffusers.DiffusionPipeline:
    transformer = diffusers.Lumina2Transformer2DModel(
        sample_size=8,
        in_channels=4,
        hidden_size=32,
        num_layers=2,
        num_refiner_layers=1,
        num_attention_heads=2,
        num_kv_heads=1,
        multiple_of=16,
        axes_dim_rope=(4, 6, 6),
        cap_feat_dim=encoders.TEXT_WIDTH,
    )
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=6.0)
    return diffusers.Lumina2Pipeline(
        **byte_parts(encoders.gemma2(), image_autoencoder(), transformer, scheduler)
    )


def _prx_parts(*, in_channels: int) -> dict[str, Any]:
    transformer = diffusers.PRXTransformer2DModel(
        in_channels=in_channels,
        context_in_dim=encoders.TEXT_WIDTH,
        hidden_size=32,
        mlp_ratio=2.0,
        num_heads=2,
        depth=2,
        axes_dim=[8, 8],
    )
    return {
        "tokenizer": ByT5Tokenizer(model_max_length=64),
        "text_encoder": encoders.t5(),  # in place of T5Gemma's, whose config diffusers wraps as it loads
        "transformer": transformer,
        "scheduler": diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
    }


def hidream() -> diffusers.DiffusionPipeline:
    """Four encoders; its transformer takes Llama's hidden states, layers first."""
    transformer = diffusers.HiDreamImageTransformer2DModel(
        patch_size=8,
        in_channels=4,
        out_channels=4,
        **ONE_OF_EACH,
        caption_channels=[encoders.TEXT_WIDTH, encoders.TEXT_WIDTH],
        text_emb_dim=encoders.TEXT_WIDTH,
        axes_dims_rope=(4, 6, 6),
        max_resolution=(16, 16),
        llama_layers=[0, 1],
    )
    half = encoders.TEXT_WIDTH // 2  # both CLIPs' pooled outputs side by side
    return diffusers.HiDreamImagePipeline(
        tokenizer=encoders.clip_tokenizer(),
        text_encoder=encoders.projected_clip(half),
        tokenizer_2=encoders.clip_tokenizer(),
        text_encoder_2=encoders.projected_clip(half),
        tokenizer_3=ByT5Tokenizer(),
        text_encoder_3=encoders.t5(),
        tokenizer_4=ByT5Tokenizer(),
        text_encoder_4=encoders.causal_llama(),
        vae=image_autoencoder(levels=1),  # it renders 128 x 128 latents, whatever the size
        transformer=transformer,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
    )


_CODES = 31


def _parts(*, levels: int = 4) -> dict[str, Any]:
    transformer = diffusers.UVit2DModel(
        hidden_size=32,
        cond_embed_dim=TEXT_WIDTH,
        micro_cond_encode_dim=8,
        micro_cond_embed_dim=40,  # of five numbers
        encoder_hidden_size=TEXT_WIDTH,
        vocab_size=_CODES + 1,  # and the mask
        codebook_size=_CODES,
        in_channels=32,
        block_out_channels=32,
        num_res_blocks=1,
        block_num_heads=2,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        sample_size=2,
    )
    autoencoder = diffusers.VQModel(
        block_out_channels=(8,) * levels,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        latent_channels=4,
        num_vq_embeddings=_CODES,
        norm_num_groups=8,
        mid_block_add_attention=False,
        lookup_from_codebook=True,
    )
    return {
        "vqvae": autoencoder,
        "tokenizer": clip_tokenizer(),
        "text_encoder": projected_clip(TEXT_WIDTH),
        "transformer": transformer,
        "scheduler": diffusers.AmusedScheduler(mask_token_id=_CODES),
    }


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


TINIES: Tinies = {
    "pixart_alpha": of("PixArtAlphaPipeline", _pixart_parts, IMAGE | UNBINNED),
    "pixart_sigma": of("PixArtSigmaPipeline", _pixart_parts, IMAGE | UNBINNED),
    "aura_flow": (aura_flow, IMAGE, ()),
    "cogview3": (cogview3, IMAGE, ()),
    "cogview4": (cogview4, IMAGE, ()),
    "lumina2": (lumina2, IMAGE, ()),
    "prx": of(
        "PRXPipeline", lambda: _prx_parts(in_channels=4) | {"vae": image_autoencoder()}, IMAGE | UNBINNED
    ),
    "hidream": (hidream, LARGEST | {"max_sequence_length": 64}, ()),
    "pixart_sigma_pag": of(
        "PixArtSigmaPAGPipeline",
        lambda: _pixart_parts() | {"pag_applied_layers": "blocks.1"},
        IMAGE | UNBINNED,
    ),
    "cogview4_control": (cogview4_control, IMAGE, ("control_image",)),
    # Without an autoencoder: it denoises pixels.
    "prx_pixel": of(
        "PRXPixelPipeline", lambda: _prx_parts(in_channels=3) | {"prompt_max_tokens": 64}, IMAGE | UNBINNED
    ),
    "lumina": (lumina, IMAGE, ()),
    "amused": of("AmusedPipeline", _parts, IMAGE),
    "amused_img2img": of("AmusedImg2ImgPipeline", _parts, REDRAWN, "image"),
    # A token is a pixel: diffusers takes pictures of multiples of its square alone.
    "amused_inpaint": of("AmusedInpaintPipeline", lambda: _parts(levels=1), REDRAWN, "image", "mask_image"),
}
