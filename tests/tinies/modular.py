"""Tiny modular pipelines: of classes that diffusers has whole too, and Anima, which is modular only."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers
from diffusers.pipelines.ltx2.duration_head import LTX2DurationHead
from transformers import ByT5Tokenizer, Qwen3Config, Qwen3Model

from tests.tinies import helios, image, ltx2, qwen_image, video, wan, z_image
from tests.tinies.encoders import TEXT_WIDTH

CHANNELS = 4  # of Anima's latents
REPOSITORY = "org/name"  # where an index says that its components are, as one of the hub does


def wan_modular() -> diffusers.ModularPipeline:
    return modular_of(diffusers.WanModularPipeline, wan.wan().components)


def wan_moe_modular() -> diffusers.ModularPipeline:
    """Two transformers, and a guider for each."""
    return modular_of(diffusers.Wan22ModularPipeline, wan.wan_moe().components)


def ltx_modular() -> diffusers.ModularPipeline:
    return modular_of(diffusers.LTXModularPipeline, video.ltx().components)


def flux_modular() -> diffusers.ModularPipeline:
    return modular_of(diffusers.FluxModularPipeline, image.flux().components)


def sdxl_modular() -> diffusers.ModularPipeline:
    return modular_of(diffusers.StableDiffusionXLModularPipeline, image.sdxl().components)


def sd3_modular() -> diffusers.ModularPipeline:
    return modular_of(diffusers.StableDiffusion3ModularPipeline, image.sd3().components)


def helios_modular() -> diffusers.ModularPipeline:
    return modular_of(diffusers.HeliosModularPipeline, helios.helios().components)


def ltx2_modular() -> diffusers.ModularPipeline:
    return modular_of(diffusers.LTX2ModularPipeline, ltx2.parts())


def ltx2_5_modular() -> diffusers.ModularPipeline:
    """Decoded by diffusion; a head of its own says how long a clip is that no row says it of."""
    decoder = diffusers.LTX2VideoDiffusionDecoderModel(
        latent_channels=8,
        decoder_head_dim=8,
        decoder_stage_channels=(64, 32, 16, 16, 8),
        decoder_stage_depths=(1, 1, 1, 1, 1),
        decoder_stage_kernels=((1, 1, 1),) * 4,
        decoder_stage5_kernel=(1, 1, 1),
        decoder_t_emb_dim=16,
    )
    head = LTX2DurationHead(
        video_cross_attention_dim=32,
        audio_cross_attention_dim=32,
        pooler_hidden_dim=16,
        num_pooler_heads=2,
        mlp_hidden_dim=16,
    )
    return modular_of(
        diffusers.LTX25ModularPipeline, {**ltx2.parts(), "diffusion_decoder": decoder, "duration_head": head}
    )


def echo() -> diffusers.ModularPipeline:
    """LTX-2's networks in a loop of its own: no noise scheduler, and new noise after each step."""
    return modular_of(diffusers.EchoModularPipeline, ltx2.parts())


def qwen_modular() -> diffusers.ModularPipeline:
    return modular_of(diffusers.QwenImageModularPipeline, qwen_image.qwen_image().components)


def z_image_modular() -> diffusers.ModularPipeline:
    return modular_of(diffusers.ZImageModularPipeline, z_image.z_image().components)


def anima() -> diffusers.ModularPipeline:
    text = Qwen3Config(
        vocab_size=384,
        hidden_size=TEXT_WIDTH,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        bos_token_id=None,
        eos_token_id=1,  # ByT5's
    )
    conditioner = diffusers.AnimaTextConditioner(
        source_dim=TEXT_WIDTH,
        target_dim=TEXT_WIDTH,
        model_dim=TEXT_WIDTH,
        num_layers=1,
        num_attention_heads=2,
        target_vocab_size=384,
        min_sequence_length=64,
    )
    transformer = diffusers.CosmosTransformer3DModel(
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        num_attention_heads=2,
        attention_head_dim=16,
        num_layers=2,
        mlp_ratio=2.0,
        text_embed_dim=TEXT_WIDTH,
        adaln_lora_dim=4,
        max_size=(4, 16, 16),
        concat_padding_mask=False,  # its padding is resized by torchvision
        extra_pos_embed_type=None,
    )
    vae = diffusers.AutoencoderKLQwenImage(
        base_dim=4,
        z_dim=CHANNELS,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        latents_mean=[0.0] * CHANNELS,
        latents_std=[1.0] * CHANNELS,
    )
    parts = {
        "tokenizer": ByT5Tokenizer(),
        "t5_tokenizer": ByT5Tokenizer(),
        "text_encoder": Qwen3Model(text),
        "text_conditioner": conditioner,
        "transformer": transformer,
        "vae": vae,
        "scheduler": diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
    }
    return modular_of(diffusers.AnimaModularPipeline, parts)


def save(pipe: diffusers.ModularPipeline, folder: Path) -> None:
    """Save a pipeline whole, with an index that says where it was published."""
    pipe.save_pretrained(str(folder), safe_serialization=True, overwrite_modular_index=True)
    index = folder / "modular_model_index.json"
    index.write_text(index.read_text().replace(json.dumps(str(folder)), json.dumps(REPOSITORY)))


def modular_of(made: type[diffusers.ModularPipeline], parts: Mapping[str, Any]) -> diffusers.ModularPipeline:
    pipe = made()
    pipe.update_components(**{name: parts[name] for name in pipe.pretrained_component_names if name in parts})
    return pipe
