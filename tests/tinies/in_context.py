"""Tiny pipelines that draw beside the pictures they are given: DreamLite and VisualCloze."""

from __future__ import annotations

from collections.abc import Callable

from diffusers import (
    AutoencoderTiny,
    DiffusionPipeline,
    DreamLiteMobilePipeline,
    DreamLitePipeline,
    DreamLiteUNetModel,
    FlowMatchEulerDiscreteScheduler,
    FluxTransformer2DModel,
    VisualClozeGenerationPipeline,
    VisualClozePipeline,
)

from tests.tinies.encoders import TEXT_WIDTH, qwen3_vl, sight_processor, sight_tokenizer
from tests.tinies.image import flux
from tests.tinies.image_edits import parts
from tests.tinies.table import STEPS, Tinies


def dreamlite(made: Callable[..., DiffusionPipeline]) -> DiffusionPipeline:
    """Small enough for a phone: a U-Net, and an autoencoder of a few convolutions."""
    denoiser = DreamLiteUNetModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        down_block_types=("DreamLiteCrossAttnNoSelfAttnDownBlock2D", "DreamLiteCrossAttnDownBlock2D"),
        up_block_types=("DreamLiteCrossAttnUpBlock2D", "DreamLiteUpBlock2D"),
        block_out_channels=(16, 32),
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=8,
        layers_per_block=1,
        norm_num_groups=4,
        transformer_layers_per_block=1,
    )
    autoencoder = AutoencoderTiny(
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1),
    )
    return made(
        text_encoder=qwen3_vl(num_layers=2),
        tokenizer=sight_tokenizer(),
        processor=sight_processor(),
        vae=autoencoder,
        unet=denoiser,
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
    )


def visual_cloze(made: Callable[..., DiffusionPipeline]) -> DiffusionPipeline:
    transformer = FluxTransformer2DModel(
        in_channels=16 + 16 + 256,  # packed: the noise, the pictures' latents, and a mask of pixels
        out_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=TEXT_WIDTH,
        pooled_projection_dim=TEXT_WIDTH,
        guidance_embeds=True,
        axes_dims_rope=(4, 6, 6),
    )
    return made(**parts(flux()) | {"transformer": transformer}, resolution=32)


_SIZE = STEPS | {"height": 32, "width": 32, "max_sequence_length": 100}
TINIES: Tinies = {
    "dreamlite": (lambda: dreamlite(DreamLitePipeline), _SIZE, ()),
    "dreamlite_mobile": (lambda: dreamlite(DreamLiteMobilePipeline), _SIZE, ()),
    "visual_cloze": (lambda: visual_cloze(VisualClozePipeline), STEPS, ()),
    "visual_cloze_generation": (lambda: visual_cloze(VisualClozeGenerationPipeline), STEPS, ()),
}
