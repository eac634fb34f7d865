"""Tiny modular pipelines: of classes that diffusers has whole too, and Anima, which is modular only."""

from __future__ import annotations

import json
from pathlib import Path

import diffusers
from diffusers.pipelines.ltx2.duration_head import LTX2DurationHead
from transformers import ByT5Tokenizer, Qwen3Config, Qwen3Model

from tests.tinies import flux_kin, helios, image, ltx2, qwen_image, video, wan, z_image
from tests.tinies.encoders import TEXT_WIDTH, language_model
from tests.tinies.table import FRAMES_5, FRAMES_9, IMAGE, LARGER, TWO_LAYERS, Tinies, modular_of, of

CHANNELS = 4  # of Anima's latents
REPOSITORY = "org/name"  # where an index says that its components are, as one of the hub does


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


def anima() -> diffusers.ModularPipeline:
    text = Qwen3Config(**language_model(2, head_dim=16, bos_token_id=None, eos_token_id=1))  # ByT5's
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
        **TWO_LAYERS,
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


TINIES: Tinies = {
    "wan_modular": of("WanModularPipeline", wan.wan, FRAMES_5),
    # Two transformers, and a guider for each.
    "wan_moe_modular": of("Wan22ModularPipeline", wan.wan_moe, FRAMES_5),
    "ltx_modular": of("LTXModularPipeline", video.ltx, FRAMES_9 | LARGER),
    "flux_modular": of("FluxModularPipeline", flux_kin.flux, LARGER),
    "sdxl_modular": of("StableDiffusionXLModularPipeline", image.sdxl, IMAGE),
    "sd3_modular": of("StableDiffusion3ModularPipeline", image.sd3, IMAGE),
    "helios_modular": of("HeliosModularPipeline", helios.helios, FRAMES_5 | {"num_frames": 33}),
    "ltx2_modular": of("LTX2ModularPipeline", ltx2.parts, FRAMES_9 | LARGER),
    "ltx2_5_modular": (ltx2_5_modular, FRAMES_9 | {"height": 32, "width": 32, "max_sequence_length": 32}, ()),
    # LTX-2's networks in a loop of its own: no noise scheduler, and new noise after each step.
    "echo": of(
        "EchoModularPipeline",
        ltx2.parts,
        {"height": 32, "width": 32, "num_frames": 9, "max_sequence_length": 32, "sigmas": [1.0, 0.0]},
    ),
    "qwen_modular": of("QwenImageModularPipeline", qwen_image.qwen_image, LARGER),
    "z_image_modular": of("ZImageModularPipeline", z_image.z_image, LARGER),
    "anima": (anima, LARGER, ()),
}
