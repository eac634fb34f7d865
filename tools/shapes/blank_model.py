"""In: a seed. Out: the untrained pipeline that `train/*.yaml` turn into the shipped one: a tiny Wan.

One latent stands for 2 frames of 8x8 pixels and one token for 2x2 latents, so that a clip of 9 x 64 x 64 is
80 tokens: they are what training on a CPU costs.
"""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanPipeline, WanTransformer3DModel
from diffusers.models.transformers.transformer_wan import WanAttention, WanRotaryPosEmbed
from torch import Tensor, nn
from transformers import ByT5Tokenizer, UMT5Config, UMT5EncoderModel

TEXT_WIDTH = 128
LATENT_CHANNELS = 24
PATCH = 4  # pixels become channels: convolutions at 16x16 instead of 64x64
FLOW_SHIFT = 3.0
GATES = [2, 5]  # of attention and feed-forward, among the six numbers that modulate a block
NEARNESS = 3.0  # three tokens away counts a fortieth


def write_blank_model(folder: Path, *, seed: int = 0) -> None:
    """Write the untrained pipeline as diffusers reads it; equal seeds, equal bytes."""
    untrained_pipeline(seed=seed).save_pretrained(folder, safe_serialization=True)


def untrained_pipeline(*, seed: int = 0) -> WanPipeline:
    """Return the untrained pipeline, fp32 on the CPU, without touching the global random state."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return WanPipeline(
            tokenizer=ByT5Tokenizer(),  # bytes: any language, no vocabulary file
            text_encoder=_text_encoder().eval(),
            vae=_autoencoder().eval(),
            transformer=_transformer().eval(),
            scheduler=UniPCMultistepScheduler(
                prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=FLOW_SHIFT
            ),
        )


def _text_encoder() -> UMT5EncoderModel:
    encoder = UMT5EncoderModel(
        UMT5Config(
            vocab_size=384, d_model=TEXT_WIDTH, d_kv=32, d_ff=256, num_layers=3, num_heads=4, dropout_rate=0.0
        )
    )
    with torch.no_grad():
        for block in encoder.encoder.block:
            _look_near(block.layer[0].SelfAttention.relative_attention_bias.weight)
    return encoder


def _look_near(bias: Tensor) -> None:
    """Let heads begin by looking back, ahead, around and everywhere.

    bias: (distances back, then ahead; heads). Which colour stands next to "background" is then learned within
    150 steps; from even attention it was not in 200.
    """
    half = len(bias) // 2
    fading = -0.5 * torch.arange(half)
    back, ahead, around = range(3)  # the fourth stays even
    nn.init.zeros_(bias)
    bias[:half, back] = bias[half:, ahead] = fading
    bias[half:, back] = bias[:half, ahead] = -20.0  # as good as never
    bias[:half, around] = bias[half:, around] = fading


def _autoencoder() -> AutoencoderKLWan:
    vae = AutoencoderKLWan(
        base_dim=48,
        z_dim=LATENT_CHANNELS,
        dim_mult=[1, 1],
        num_res_blocks=1,
        temperal_downsample=[True],
        is_residual=True,  # colours pass from the first step
        in_channels=3 * PATCH**2,
        out_channels=3 * PATCH**2,
        patch_size=PATCH,
        scale_factor_spatial=2 * PATCH,
        scale_factor_temporal=2,
        latents_mean=[0.0] * LATENT_CHANNELS,
        latents_std=[1.0] * LATENT_CHANNELS,
    )
    with torch.no_grad():
        for block in vae.modules():
            if type(block).__name__ == "WanResidualBlock":
                _silence(block.conv2)  # blocks begin as identities, so that a high learning rate is safe
        vae.quant_conv.weight[LATENT_CHANNELS:] *= 0.1
        # Log variance: a little noise, so that the decoder forgives what the denoiser gets wrong.
        vae.quant_conv.bias[LATENT_CHANNELS:] = -5.5
    return vae


def _silence(layer: nn.Conv3d) -> None:
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def _transformer() -> WanTransformer3DModel:
    transformer = WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=3,
        attention_head_dim=64,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        text_dim=TEXT_WIDTH,
        freq_dim=64,
        ffn_dim=704,
        num_layers=6,
        rope_max_seq_len=128,
    )
    with torch.no_grad():
        for block in transformer.blocks:
            block.scale_shift_table[:, GATES] += 1  # all layers speak from the first step
            _attend_near(block.attn1, transformer.rope)
    return transformer


def _attend_near(attention: WanAttention, rope: WanRotaryPosEmbed) -> None:
    """Let the first head begin with the nearest tokens, the second with the same place in all frames.

    A constant in queries and keys makes the rotary embedding alone decide: cosines of the distance
    of the two highest frequencies.
    """
    time, row, column = 0, rope.t_dim, rope.t_dim + rope.h_dim
    with torch.no_grad():
        for head, axes in enumerate(((time, row, column), (row, column))):
            first = head * rope.attention_head_dim
            for axis in axes:
                for layer in (attention.to_q, attention.to_k):
                    layer.bias[first + axis : first + axis + 4 : 2] = NEARNESS
