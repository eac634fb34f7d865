"""A tiny Kandinsky 6 SR, which makes a clip larger, tile by tile."""

from __future__ import annotations

import diffusers

CHANNELS = 4  # of the latents


def kandinsky_6_sr() -> diffusers.DiffusionPipeline:
    """Return one whose tiles are of 8 x 8 tokens, the fewest that its attention takes."""
    transformer = diffusers.Kandinsky6SRTransformer3DModel(
        in_visual_dim=CHANNELS,
        out_visual_dim=CHANNELS,
        time_dim=32,
        model_dim=32,
        ff_dim=64,
        num_visual_blocks=1,
        axes_dims=(8, 12, 12),
        tile_sizes=((32, 32),),
    )
    vae = diffusers.Kandinsky6SRVAE(
        latent_channels=CHANNELS,
        encoder_block_out_channels=(32, 32, 32),  # its norms have 32 groups
        decoder_block_out_channels=(32, 32, 32),
        layers_per_block=1,
    )
    return diffusers.Kandinsky6SRPipeline(
        transformer=transformer, vae=vae, scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=5.0)
    )
