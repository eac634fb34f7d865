"""Build tiny random-weight diffusers pipeline folders: real classes, the same bytes every time."""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLCogVideoX,
    AutoencoderKLLTXVideo,
    AutoencoderKLWan,
    CogVideoXDDIMScheduler,
    CogVideoXPipeline,
    CogVideoXTransformer3DModel,
    DDIMScheduler,
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    LTXPipeline,
    LTXVideoTransformer3DModel,
    StableDiffusionPipeline,
    UNet2DConditionModel,
    WanPipeline,
    WanTransformer3DModel,
)
from transformers import ByT5Tokenizer, CLIPTextConfig, CLIPTextModel, CLIPTokenizer, T5Config, T5EncoderModel

from framefleet.jobs.demo_model import byte_text_encoder, fill_weights, flow_scheduler

TEXT_WIDTH = 32

SMALLEST: dict[str, dict[str, Any]] = {
    "wan": {"height": 16, "width": 16, "num_frames": 5, "num_inference_steps": 2},
    "wan_moe": {"height": 16, "width": 16, "num_frames": 5, "num_inference_steps": 2},
    "cogvideox": {"height": 16, "width": 16, "num_frames": 9, "num_inference_steps": 2},
    "ltx": {"height": 32, "width": 32, "num_frames": 9, "num_inference_steps": 2},
    "flux": {"height": 16, "width": 16, "num_inference_steps": 2},
    "sd": {"height": 16, "width": 16, "num_inference_steps": 2},
}


@functools.cache
def tiny(name: str) -> Path:
    """Return the folder of a tiny pipeline, built once per process and removed at its exit."""
    parent = Path(tempfile.mkdtemp(prefix="framefleet-tiny-"))
    atexit.register(shutil.rmtree, parent, ignore_errors=True)
    return build(name, parent / name)


def build(name: str, folder: Path) -> Path:
    """Save pipeline `name` (a key of BUILDERS) into `folder`; the global random state is left alone."""
    with torch.random.fork_rng(devices=[]):  # constructors draw weights that are then overwritten
        pipeline = BUILDERS[name]()
    for seed, key in enumerate(sorted(pipeline.components)):
        if isinstance(pipeline.components[key], torch.nn.Module):
            fill_weights(pipeline.components[key], seed=seed)
    with torch.no_grad():
        for weight in pipeline.vae.decoder.conv_out.parameters():
            weight.mul_(0.5)  # keeps most pixels between black and white
    pipeline.save_pretrained(folder, safe_serialization=True)
    return folder


def _wan() -> DiffusionPipeline:
    return WanPipeline(**_wan_parts(), transformer=_wan_transformer())


def _wan_moe() -> DiffusionPipeline:
    return WanPipeline(
        **_wan_parts(),
        transformer=_wan_transformer(),
        transformer_2=_wan_transformer(),
        boundary_ratio=0.875,
    )


def _wan_known() -> DiffusionPipeline:
    """A tiny one that the preset of Wan 2.1 1.3B takes for its own: as many layers and latent channels."""
    transformer = _wan_transformer(channels=16, num_layers=30)
    return WanPipeline(**_wan_parts(channels=16), transformer=transformer)


def _wan_parts(*, channels: int = 4) -> dict[str, Any]:
    vae = AutoencoderKLWan(
        base_dim=4,
        z_dim=channels,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        latents_mean=[0.0] * channels,
        latents_std=[1.0] * channels,
    )
    return {
        "tokenizer": ByT5Tokenizer(),
        "text_encoder": byte_text_encoder(TEXT_WIDTH),
        "vae": vae,
        "scheduler": flow_scheduler(),
    }


def _wan_transformer(*, channels: int = 4, num_layers: int = 2) -> WanTransformer3DModel:
    return WanTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=channels,
        out_channels=channels,
        text_dim=TEXT_WIDTH,
        freq_dim=32,
        ffn_dim=64,
        num_layers=num_layers,
    )


def _cogvideox() -> DiffusionPipeline:
    transformer = CogVideoXTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=4,
        out_channels=4,
        time_embed_dim=16,
        text_embed_dim=TEXT_WIDTH,
        num_layers=2,
        sample_width=8,
        sample_height=8,
        sample_frames=9,
        use_rotary_positional_embeddings=True,
    )
    vae = AutoencoderKLCogVideoX(
        block_out_channels=(8, 8, 8, 8),
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=2,
        scaling_factor=0.7,
    )
    # The noise schedule that CogVideoX-5b ships.
    scheduler = CogVideoXDDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        snr_shift_scale=1.0,
        timestep_spacing="trailing",
    )
    return CogVideoXPipeline(
        tokenizer=ByT5Tokenizer(), text_encoder=_t5(), vae=vae, transformer=transformer, scheduler=scheduler
    )


def _ltx() -> DiffusionPipeline:
    transformer = LTXVideoTransformer3DModel(
        in_channels=8,
        out_channels=8,
        num_attention_heads=2,
        attention_head_dim=16,
        cross_attention_dim=32,
        num_layers=2,
        caption_channels=TEXT_WIDTH,
    )
    vae = AutoencoderKLLTXVideo(
        latent_channels=8,
        block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 8, 8, 8),
        layers_per_block=(1, 1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1, 1),
    )
    scheduler = FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True,
        base_shift=0.95,
        max_shift=2.05,
        base_image_seq_len=1024,
        max_image_seq_len=4096,
        shift_terminal=0.1,
    )
    return LTXPipeline(
        tokenizer=ByT5Tokenizer(), text_encoder=_t5(), vae=vae, transformer=transformer, scheduler=scheduler
    )


def _flux() -> DiffusionPipeline:
    transformer = FluxTransformer2DModel(
        in_channels=16,  # four latent channels in 2 x 2 patches
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=TEXT_WIDTH,
        pooled_projection_dim=TEXT_WIDTH,
        guidance_embeds=True,
        axes_dims_rope=(4, 6, 6),
    )
    return FluxPipeline(
        tokenizer=_clip_tokenizer(),
        text_encoder=_clip(),
        tokenizer_2=ByT5Tokenizer(),
        text_encoder_2=_t5(),
        vae=_image_autoencoder(),
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift=3.0),
    )


def _sd() -> DiffusionPipeline:
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16, 32),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        norm_num_groups=4,
        attention_head_dim=2,
        cross_attention_dim=TEXT_WIDTH,
    )
    # The noise schedule that Stable Diffusion 1.5 ships.
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    return StableDiffusionPipeline(
        tokenizer=_clip_tokenizer(),
        text_encoder=_clip(),
        vae=_image_autoencoder(),
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _t5() -> T5EncoderModel:
    config = T5Config(vocab_size=384, d_model=TEXT_WIDTH, d_kv=16, d_ff=64, num_layers=2, num_heads=2)
    return T5EncoderModel(config)


def _clip() -> CLIPTextModel:
    ends = len(_clip_vocabulary()) - 1
    config = CLIPTextConfig(
        vocab_size=ends + 1,
        hidden_size=TEXT_WIDTH,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        bos_token_id=ends - 1,
        eos_token_id=ends,
        pad_token_id=ends,
    )
    return CLIPTextModel(config)


def _clip_tokenizer() -> CLIPTokenizer:
    return CLIPTokenizer(vocab=_clip_vocabulary(), merges=[], model_max_length=77)


def _clip_vocabulary() -> dict[str, int]:
    """Return ids for single bytes, bytes that end a word, and CLIP's two marks: a CLIP without merges."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]  # GPT-2's byte alphabet ...
    spare = (chr(256 + i) for i in range(256 - len(printable)))  # ... and its stand-ins for the rest
    alphabet = [chr(b) if b in printable else next(spare) for b in range(256)]
    tokens = [*alphabet, *(c + "</w>" for c in alphabet), "<|startoftext|>", "<|endoftext|>"]
    return {token: i for i, token in enumerate(tokens)}


def _image_autoencoder() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),  # four levels: eight pixels to a latent, as in the real ones
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=2,
        sample_size=64,
        scaling_factor=0.5,
        shift_factor=0.1,
    )


BUILDERS: dict[str, Callable[[], DiffusionPipeline]] = {
    "wan": _wan,
    "wan_moe": _wan_moe,
    "wan_known": _wan_known,
    "cogvideox": _cogvideox,
    "ltx": _ltx,
    "flux": _flux,
    "sd": _sd,
}
