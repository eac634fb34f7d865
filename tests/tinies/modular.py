"""Tiny modular pipelines: of classes that diffusers has whole too, and Anima, which is modular only."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import diffusers
from diffusers.pipelines.ltx2.duration_head import LTX2DurationHead
from transformers import ByT5Tokenizer, Qwen3Config, Qwen3Model

from tests.tinies import (
    autumn,
    diffusion_transformers,
    flux_kin,
    hunyuan,
    image,
    ltx2,
    qwen_kin,
    video,
    wan,
    z_image,
)
from tests.tinies.encoders import TEXT_WIDTH, language_model
from tests.tinies.table import FRAMES_5, FRAMES_9, IMAGE, LARGER, LARGEST, TWO_LAYERS, Tinies, modular_of, of

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
    parts = {
        "tokenizer": ByT5Tokenizer(),
        "t5_tokenizer": ByT5Tokenizer(),
        "text_encoder": Qwen3Model(text),
        "text_conditioner": conditioner,
        "transformer": transformer,
        "vae": qwen_kin.autoencoder(),
        "scheduler": diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
    }
    return modular_of(diffusers.AnimaModularPipeline, parts)


def save(pipe: diffusers.ModularPipeline, folder: Path) -> None:
    """Save a pipeline whole, with an index that says where it was published."""
    pipe.save_pretrained(str(folder), safe_serialization=True, overwrite_modular_index=True)
    index = folder / "modular_model_index.json"
    index.write_text(index.read_text().replace(json.dumps(str(folder)), json.dumps(REPOSITORY)))


def wan_moe_vace() -> diffusers.ModularPipeline:
    parts = wan.wan_vace().components
    return modular_of(
        diffusers.Wan22VaceModularPipeline, {**parts, "transformer_2": wan.wan_vace().transformer}
    )


def helios_pyramid() -> diffusers.ModularPipeline:
    """Not distilled: with Helios' own scheduler."""
    parts = diffusion_transformers.helios_pyramid().components
    return modular_of(
        diffusers.HeliosPyramidModularPipeline, {**parts, "scheduler": diffusers.HeliosScheduler(gamma=0.3)}
    )


def qwen_edit(made: type[diffusers.ModularPipeline]) -> diffusers.ModularPipeline:
    """Blocks round pictures to 32 pixels, which have to be two latents or more."""
    parts = qwen_kin.edit_parts()
    return modular_of(made, {**parts, "vae": qwen_kin.autoencoder()})


TINIES: Tinies = {
    "wan_modular": of("WanModularPipeline", wan.wan, FRAMES_5),
    # Two transformers, and a guider for each.
    "wan_moe_modular": of("Wan22ModularPipeline", wan.wan_moe, FRAMES_5),
    "ltx_modular": of("LTXModularPipeline", video.ltx, FRAMES_9 | LARGER),
    "flux_modular": of("FluxModularPipeline", flux_kin.flux, LARGER),
    "sdxl_modular": of("StableDiffusionXLModularPipeline", image.sdxl, IMAGE),
    "sd3_modular": of("StableDiffusion3ModularPipeline", image.sd3, IMAGE),
    "helios_modular": of(
        "HeliosModularPipeline", diffusion_transformers.helios, FRAMES_5 | {"num_frames": 33}
    ),
    "ltx2_modular": of("LTX2ModularPipeline", ltx2.parts, FRAMES_9 | LARGER),
    "ltx2_5_modular": (ltx2_5_modular, FRAMES_9 | {"height": 32, "width": 32, "max_sequence_length": 32}, ()),
    # LTX-2's networks in a loop of its own: no noise scheduler, and new noise after each step.
    "echo": of(
        "EchoModularPipeline",
        ltx2.parts,
        {"height": 32, "width": 32, "num_frames": 9, "max_sequence_length": 32, "sigmas": [1.0, 0.0]},
    ),
    "qwen_modular": of("QwenImageModularPipeline", qwen_kin.qwen_image, LARGER),
    "z_image_modular": of("ZImageModularPipeline", z_image.z_image, LARGER),
    "anima": (anima, LARGER, ()),
    "hunyuan_1_5_modular": of("HunyuanVideo15ModularPipeline", hunyuan.hunyuan_1_5, FRAMES_5),
    # With a picture it reads as much of a prompt as the whole one.
    "wan_i2v_modular": of(
        "WanImage2VideoModularPipeline", wan.wan_i2v, FRAMES_5 | {"max_sequence_length": 512}, "image"
    ),
    "wan_moe_i2v_modular": of("Wan22Image2VideoModularPipeline", wan.wan_i2v_moe, FRAMES_5, "image"),
    "wan_moe_vace_modular": (wan_moe_vace, FRAMES_5, ()),
    "helios_pyramid_distilled_modular": of(
        "HeliosPyramidDistilledModularPipeline",
        diffusion_transformers.helios_pyramid,
        {"height": 64, "width": 64, "num_frames": 33},
    ),
    "helios_pyramid_modular": (helios_pyramid, {"height": 64, "width": 64, "num_frames": 33}, ()),
    "wan_animate_2_distilled": of(
        "WanAnimate2DistilledModularPipeline",
        wan.wan_animate_2,
        LARGER | {"segment_frame_length": 5},
        image=1,
        driving_video=9,
    ),
    "flux2_modular": of("Flux2ModularPipeline", flux_kin.flux2, LARGER),
    "flux2_klein_modular": of("Flux2KleinModularPipeline", flux_kin.flux2_klein, LARGER),
    "flux2_klein_base_modular": of("Flux2KleinBaseModularPipeline", flux_kin.flux2_klein_base, LARGER),
    "ernie_modular": of("ErnieImageModularPipeline", flux_kin.ernie, LARGER),
    "krea2_modular": of("Krea2ModularPipeline", qwen_kin.krea2_deep, LARGER),
    "krea2_turbo_modular": of("Krea2TurboModularPipeline", qwen_kin.krea2_deep, LARGER),
    "qwen_2_1_modular": of("QwenImage21ModularPipeline", qwen_kin.qwen_2_1, LARGER),
    "qwen_2_1_turbo_modular": of("QwenImage21TurboModularPipeline", qwen_kin.qwen_2_1, LARGER),
    "qwen_edit_modular": (partial(qwen_edit, diffusers.QwenImageEditModularPipeline), LARGEST, ("image",)),
    "qwen_edit_plus_modular": (
        partial(qwen_edit, diffusers.QwenImageEditPlusModularPipeline),
        LARGEST,
        ("image",),
    ),
    "qwen_layered_modular": of(
        "QwenImageLayeredModularPipeline",
        qwen_kin.qwen_layered,
        {"num_inference_steps": 2, "layers": 2},
        "image",
    ),
    "flux_kontext_modular": of(
        "FluxKontextModularPipeline", flux_kin.flux_parts, LARGER | {"max_area": 1024}, "image"
    ),
    "ideogram4_modular": of(
        "Ideogram4ModularPipeline",
        autumn.ideogram4,
        LARGER | {"guidance_schedule": [7.0, 3.0], "max_sequence_length": 128},
    ),
}
