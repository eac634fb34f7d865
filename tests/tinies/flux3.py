"""A tiny FLUX.3, which is modular only: a language model writes the prompt out before it is encoded."""

from __future__ import annotations

from typing import Any

import diffusers
from transformers import Qwen3_5Config, Qwen3_5ForConditionalGeneration

from tests.tinies import encoders
from tests.tinies.table import ONE_OF_EACH, modular_of

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
