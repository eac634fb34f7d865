"""Further tiny LTX-2 pipelines, over the parts of the first: from a picture, and with given frames."""

from __future__ import annotations

import diffusers
from diffusers.pipelines.ltx2.latent_upsampler import LTX2LatentUpsamplerModel

from tests.tinies.ltx2 import ltx2, parts
from tests.tinies.table import FRAMES_9, LARGER, Tinies, of


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
    "ltx2": (ltx2, _LTX2, ()),
    "ltx2_i2v": of("LTX2ImageToVideoPipeline", ltx2, _LTX2, "image"),
    "ltx2_condition": of("LTX2ConditionPipeline", ltx2, _LTX2),
    "ltx2_in_context": of("LTX2InContextPipeline", parts, _LTX2),
    "ltx2_dfr": (ltx2_dfr, {"height": 32, "width": 32, "num_frames": 9}, ()),
    "ltx2_upsampler": (ltx2_upsampler, {"height": 32, "width": 32, "num_frames": 9}, {"video": 9}),
}
