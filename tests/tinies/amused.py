"""Tiny aMUSEd pipelines: a transformer fills masked tokens of a picture in."""

from __future__ import annotations

from typing import Any

import diffusers

from tests.tinies.encoders import TEXT_WIDTH, clip_tokenizer, projected_clip
from tests.tinies.table import IMAGE, REDRAWN, Tinies, of

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


TINIES: Tinies = {
    "amused": of("AmusedPipeline", _parts, IMAGE),
    "amused_img2img": of("AmusedImg2ImgPipeline", _parts, REDRAWN, "image"),
    # A token is a pixel: diffusers takes pictures of multiples of its square alone.
    "amused_inpaint": of("AmusedInpaintPipeline", lambda: _parts(levels=1), REDRAWN, "image", "mask_image"),
}
