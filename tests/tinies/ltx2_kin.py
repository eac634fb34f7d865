"""Further tiny LTX-2 pipelines, over the parts of the first: from a picture, and with given frames."""

from __future__ import annotations

from diffusers import DiffusionPipeline, LTX2ConditionPipeline, LTX2ImageToVideoPipeline

from tests.tinies.ltx2 import ltx2


def ltx2_i2v() -> DiffusionPipeline:
    return LTX2ImageToVideoPipeline(**ltx2().components)


def ltx2_condition() -> DiffusionPipeline:
    return LTX2ConditionPipeline(**ltx2().components)
