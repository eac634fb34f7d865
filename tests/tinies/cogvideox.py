"""Tiny CogVideoX pipelines: 2B, 5B and 1.5; from text, from a picture, from a clip."""

from __future__ import annotations

from typing import Any

import diffusers

from tests.tinies.encoders import TEXT_WIDTH, byte_parts, t5
from tests.tinies.table import FRAMES_9, IMAGE, LARGER, TWO_LAYERS, Tinies, of

CHANNELS = 4  # of the latents; the picture's stand beside them
_PATCHES_OF_1_5: dict[str, Any] = {"patch_size_t": 2, "patch_bias": False}  # two latent frames to a token


def _parts(*, snr_shift_scale: float = 1.0, **settings: Any) -> dict[str, Any]:
    vae = diffusers.AutoencoderKLCogVideoX(
        block_out_channels=(8, 8, 8, 8),
        latent_channels=CHANNELS,
        layers_per_block=1,
        norm_num_groups=2,
        scaling_factor=0.7,
    )
    # The noise schedule that CogVideoX-5b ships.
    scheduler = diffusers.CogVideoXDDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        snr_shift_scale=snr_shift_scale,
        timestep_spacing="trailing",
    )
    return byte_parts(t5(), vae, _transformer(**settings), scheduler)


def _transformer(**settings: Any) -> diffusers.CogVideoXTransformer3DModel:
    given: dict[str, Any] = {
        "in_channels": CHANNELS,
        "sample_width": 8,
        "sample_height": 8,
        "use_rotary_positional_embeddings": True,
    }
    return diffusers.CogVideoXTransformer3DModel(
        **TWO_LAYERS,
        out_channels=CHANNELS,
        time_embed_dim=16,
        text_embed_dim=TEXT_WIDTH,
        sample_frames=9,
        **{**given, **settings},
    )


def _known_by_place() -> dict[str, Any]:
    """Return those of CogVideoX-5B's kind: learned position embeddings, which hold for one size only."""
    return _parts(
        in_channels=2 * CHANNELS, use_learned_positional_embeddings=True, sample_width=4, sample_height=4
    )


TINIES: Tinies = {
    "cogvideox": of("CogVideoXPipeline", _parts, FRAMES_9),
    # Fixed position embeddings instead of rotary ones, and a noise schedule of its own.
    "cogvideox_2b": of(
        "CogVideoXPipeline",
        lambda: _parts(snr_shift_scale=3.0, use_rotary_positional_embeddings=False),
        FRAMES_9,
    ),
    "cogvideox_1_5": of("CogVideoXPipeline", lambda: _parts(**_PATCHES_OF_1_5), FRAMES_9),
    "cogvideox_i2v": of("CogVideoXImageToVideoPipeline", _known_by_place, FRAMES_9 | LARGER, "image"),
    "cogvideox_1_5_i2v": of(
        "CogVideoXImageToVideoPipeline",
        lambda: _parts(in_channels=2 * CHANNELS, ofs_embed_dim=16, **_PATCHES_OF_1_5),
        FRAMES_9,
        "image",
    ),
    "cogvideox_v2v": of("CogVideoXVideoToVideoPipeline", _parts, IMAGE | {"strength": 0.8}, video=9),
    # A clip's latents beside the noise.
    "cogvideox_fun_control": of(
        "CogVideoXFunControlPipeline", lambda: _parts(in_channels=2 * CHANNELS), IMAGE, control_video=9
    ),
}
