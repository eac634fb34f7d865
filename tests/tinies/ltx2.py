"""Tiny LTX-2: one transformer over frames and sound, text connectors; from text, a picture, given frames."""

from __future__ import annotations

from typing import Any

import diffusers
from diffusers.pipelines.ltx2.connectors import LTX2TextConnectors
from diffusers.pipelines.ltx2.latent_upsampler import LTX2LatentUpsamplerModel
from diffusers.pipelines.ltx2.vocoder import LTX2Vocoder
from transformers import ByT5Tokenizer, Gemma3Config, Gemma3ForConditionalGeneration

from tests.tinies.encoders import SIGHT, TEXT_WIDTH, language_model
from tests.tinies.table import FRAMES_9, LARGER, TWO_LAYERS, Tinies, of
from tests.tinies.video import ltx_scheduler

_MEL_BINS = 16
_SOUND_CHANNELS = 2 * _MEL_BINS // 4  # of 2 latent channels, whose bands lie side by side


def parts(**settings: Any) -> dict[str, Any]:
    """settings: of the transformer."""
    transformer = diffusers.LTX2VideoTransformer3DModel(
        in_channels=8,
        out_channels=8,
        **TWO_LAYERS,
        cross_attention_dim=32,
        audio_in_channels=_SOUND_CHANNELS,
        audio_out_channels=_SOUND_CHANNELS,
        audio_num_attention_heads=2,
        audio_attention_head_dim=8,
        audio_cross_attention_dim=16,
        caption_channels=TEXT_WIDTH,
        **settings,
    )
    return {
        "tokenizer": ByT5Tokenizer(model_max_length=32),
        "text_encoder": _gemma(),
        "connectors": LTX2TextConnectors(
            caption_channels=TEXT_WIDTH,
            text_proj_in_factor=3,  # two layers, and what goes into the first
            video_connector_num_attention_heads=2,
            video_connector_attention_head_dim=16,
            video_connector_num_layers=1,
            video_connector_num_learnable_registers=8,
            audio_connector_num_attention_heads=2,
            audio_connector_attention_head_dim=16,
            audio_connector_num_layers=1,
            audio_connector_num_learnable_registers=8,
        ),
        "transformer": transformer,
        "vae": diffusers.AutoencoderKLLTX2Video(
            latent_channels=8,
            block_out_channels=(8, 8, 8, 8),
            decoder_block_out_channels=(8, 16, 32),
            layers_per_block=(1, 1, 1, 1, 1),
            decoder_layers_per_block=(1, 1, 1, 1),
            decoder_spatial_padding_mode="zeros",  # 32 pixels are one latent, with nothing to reflect
            spatial_compression_ratio=32,
            temporal_compression_ratio=8,
        ),
        "audio_vae": diffusers.AutoencoderKLLTX2Audio(
            base_channels=_SOUND_CHANNELS, latent_channels=2, num_res_blocks=1, mel_bins=_MEL_BINS
        ),
        "vocoder": LTX2Vocoder(in_channels=2 * _MEL_BINS, hidden_channels=32),
        "scheduler": ltx_scheduler(),
    }


def _gemma() -> Gemma3ForConditionalGeneration:
    text = language_model(2) | {"head_dim": 16}
    config = Gemma3Config(
        text_config=text,
        vision_config=SIGHT,
        mm_tokens_per_image=4,
        image_token_index=380,
        boi_token_index=381,
        eoi_token_index=382,
    )
    return Gemma3ForConditionalGeneration(config)


def ltx2_dfr() -> diffusers.DiffusionPipeline:
    """LTX-2.5's: whole frames at places in the clip, denoised with the rest."""
    given = parts(use_keyframes_abs_pos_embedding=True)
    return diffusers.LTX2DFRPipeline(**given | {"scheduler": diffusers.FlowMatchEulerDiscreteScheduler()})


def ltx2_upsampler() -> diffusers.DiffusionPipeline:
    """No noise and no steps: a clip in, one of twice its size out."""
    network = LTX2LatentUpsamplerModel(in_channels=8, mid_channels=32, num_blocks_per_stage=1)
    return diffusers.LTX2LatentUpsamplePipeline(vae=parts()["vae"], latent_upsampler=network)


_LTX2 = FRAMES_9 | LARGER | {"stg_scale": 0.0, "audio_stg_scale": 0.0}


TINIES: Tinies = {
    "ltx2": of("LTX2Pipeline", parts, _LTX2),
    "ltx2_i2v": of("LTX2ImageToVideoPipeline", parts, _LTX2, "image"),
    "ltx2_condition": of("LTX2ConditionPipeline", parts, _LTX2),
    "ltx2_in_context": of("LTX2InContextPipeline", parts, _LTX2),
    "ltx2_dfr": (ltx2_dfr, {"height": 32, "width": 32, "num_frames": 9}, ()),
    "ltx2_upsampler": (ltx2_upsampler, {"height": 32, "width": 32, "num_frames": 9}, {"video": 9}),
}
