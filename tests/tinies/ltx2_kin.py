"""Further tiny LTX-2 pipelines, over the parts of the first: from a picture, and with given frames."""

from __future__ import annotations

from diffusers import (
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    LTX2ConditionPipeline,
    LTX2DFRPipeline,
    LTX2ImageToVideoPipeline,
    LTX2InContextPipeline,
    LTX2LatentUpsamplePipeline,
)
from diffusers.pipelines.ltx2.latent_upsampler import LTX2LatentUpsamplerModel

from tests.tinies.ltx2 import ltx2, parts


def ltx2_i2v() -> DiffusionPipeline:
    return LTX2ImageToVideoPipeline(**ltx2().components)


def ltx2_condition() -> DiffusionPipeline:
    return LTX2ConditionPipeline(**ltx2().components)


def ltx2_in_context() -> DiffusionPipeline:
    return LTX2InContextPipeline(**parts())


def ltx2_dfr() -> DiffusionPipeline:
    """LTX-2.5's: whole frames at places in the clip, denoised with the rest."""
    given = parts(use_keyframes_abs_pos_embedding=True)
    return LTX2DFRPipeline(**given | {"scheduler": FlowMatchEulerDiscreteScheduler()})


def ltx2_upsampler() -> DiffusionPipeline:
    """No noise and no steps: a clip in, one of twice its size out."""
    network = LTX2LatentUpsamplerModel(in_channels=8, mid_channels=32, num_blocks_per_stage=1)
    return LTX2LatentUpsamplePipeline(vae=parts()["vae"], latent_upsampler=network)
