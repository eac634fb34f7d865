"""Further tiny LTX-2 pipelines, over the parts of the first: from a picture, and with given frames."""

from __future__ import annotations

from diffusers import (
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    LTX2ConditionPipeline,
    LTX2DFRPipeline,
    LTX2ImageToVideoPipeline,
    LTX2InContextPipeline,
)

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
