"""The tiny pipelines are fit to test with: they render, repeat, and show what they were asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline

from framefleet.pipeline.model.families.registry import PRESETS
from framefleet.pipeline.model.registry import class_named
from framefleet.pipeline.model.specs.model_index import is_modular
from framefleet.plugins.models.descriptions import read_measured
from tests.long import long_but
from tests.tiny import INPUTS, smallest_call, tiny

# Those whose frames other tests look at. What all of them render: tests/periphery/models/test_conformance.py.
NAMES = ("wan", "wan_moe", "wan_ti2v", "wan_ti2v_image", "wan_i2v", "wan_i2v_moe", "wan_v2v", "cogvideox")
NAMES += ("cogvideox_2b", "cogvideox_1_5", "cogvideox_i2v", "cogvideox_1_5_i2v", "cogvideox_v2v", "ltx")
NAMES += ("ltx_i2v", "hunyuan", "opensora", "opensora_dc", "animatediff", "svd", "sd", "sdxl", "sd3", "flux")
SHORT = ("wan", "wan_i2v", "cogvideox", "svd", "sd", "flux")
VISIBLE = 2 / 255  # mean change per pixel; far above rounding


def _load(folder: Path) -> DiffusionPipeline:
    index = json.loads((folder / "model_index.json").read_text())
    return class_named(index["_class_name"]).from_pretrained(folder, dtype=torch.bfloat16)


def _frames(pipe: DiffusionPipeline, arguments: dict[str, Any], *, seed: int = 0) -> np.ndarray[Any, Any]:
    generator = torch.Generator("cpu").manual_seed(seed)
    output = pipe(**arguments, generator=generator, output_type="np")
    return np.asarray(output.frames[0] if hasattr(output, "frames") else output.images)


def _arguments(name: str, *, start: int = 0, guidance: float = 4.0) -> dict[str, Any]:
    scale = "max_guidance_scale" if name == "svd" else "guidance_scale"
    return {**smallest_call(name, start=start), "height": 32, "width": 32, scale: guidance}


@pytest.mark.parametrize("name", long_but(NAMES, *SHORT))
def test_frames_follow_what_was_asked(name: str) -> None:
    pipe, arguments = _load(tiny(name)), _arguments(name)
    frames = _frames(pipe, arguments)
    assert np.isfinite(frames).all()
    assert frames.std() > VISIBLE
    assert ((frames > 0) & (frames < 1)).mean() > 0.5
    others = [_frames(pipe, arguments, seed=1), _frames(pipe, _arguments(name, guidance=2.0))]
    if "prompt" in arguments:
        others.append(_frames(pipe, {**arguments, "prompt": "一只绿色的猫"}))
    if name in INPUTS:
        others.append(_frames(pipe, _arguments(name, start=1)))
    for other in others:
        assert np.abs(frames - other).mean() > VISIBLE


def test_every_class_of_diffusers_with_a_preset_has_a_tiny_pipeline() -> None:
    built = {finding.class_name for finding in read_measured().findings.values()}
    known = {name for preset in PRESETS for name in preset.pipelines if hasattr(diffusers, name)}
    assert {name for name in known if not is_modular(name)} <= built
