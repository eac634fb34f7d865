"""The tiny pipelines are fit to test with: they render, repeat, and show what they were asked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline

from framefleet.pipeline.hooks.intercept import intercept
from framefleet.pipeline.model.families.registry import PRESETS
from framefleet.pipeline.model.options.offload import modules_of
from framefleet.pipeline.model.registry import class_named
from framefleet.pipeline.model.specs.model_index import DENOISERS, is_modular
from framefleet.pipeline.model.specs.spec import inspect_model
from framefleet.pipeline.render.fused.forwards import StateWatch
from framefleet.plugins.models.descriptions import read_measured
from tests.long import long_but
from tests.tiny import INPUTS, SMALLEST, TYPICAL, build, smallest_call, tiny

# Those whose frames other tests look at. What all of them render: tests/periphery/models/test_conformance.py.
NAMES = ("wan", "wan_moe", "wan_ti2v", "wan_ti2v_image", "wan_i2v", "wan_i2v_moe", "wan_v2v", "cogvideox")
NAMES += ("cogvideox_2b", "cogvideox_1_5", "cogvideox_i2v", "cogvideox_1_5_i2v", "cogvideox_v2v", "ltx")
NAMES += ("ltx_i2v", "hunyuan", "opensora", "opensora_dc", "animatediff", "svd", "sd", "sdxl", "sd3", "flux")
SHORT = ("wan", "wan_i2v", "cogvideox", "svd", "sd", "flux")
VISIBLE = 2 / 255  # mean change per pixel; far above rounding


def _load(folder: Path, dtype: torch.dtype) -> DiffusionPipeline:
    index = json.loads((folder / "model_index.json").read_text())
    pipe = class_named(index["_class_name"]).from_pretrained(folder, dtype=dtype)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _frames(pipe: DiffusionPipeline, arguments: dict[str, Any], *, seed: int = 0) -> np.ndarray[Any, Any]:
    generator = torch.Generator("cpu").manual_seed(seed)
    output = pipe(**arguments, generator=generator, output_type="np")
    return np.asarray(output.frames[0] if hasattr(output, "frames") else output.images)


def _arguments(name: str, *, start: int = 0, guidance: float = 4.0) -> dict[str, Any]:
    scale = "max_guidance_scale" if name == "svd" else "guidance_scale"
    return {**smallest_call(name, start=start), "height": 32, "width": 32, scale: guidance}


def _digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("name", long_but(NAMES, *SHORT))
def test_frames_follow_what_was_asked(name: str) -> None:
    pipe, arguments = _load(tiny(name), torch.bfloat16), _arguments(name)
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


@pytest.mark.parametrize("name", long_but(NAMES, *SHORT))
def test_the_smallest_arguments_render_and_no_denoiser_keeps_state(name: str) -> None:
    pipe, watch = _load(tiny(name), torch.float32), StateWatch()

    def watched(denoiser: str, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        with watch.around(denoiser, pipe.components[denoiser], denoiser):
            return forward(*args, **kwargs)

    with intercept(modules_of(pipe, DENOISERS), watched):
        frames = _frames(pipe, smallest_call(name))
    assert watch.found is None
    smallest = SMALLEST[name]
    count = smallest.get("num_frames", INPUTS.get(name, {}).get("video", 1))
    assert frames.shape == (count, smallest["height"], smallest["width"], 3)


def test_every_class_of_diffusers_with_a_preset_has_a_tiny_pipeline() -> None:
    built = {finding.class_name for finding in read_measured().findings.values()}
    known = {name for preset in PRESETS for name in preset.pipelines if hasattr(diffusers, name)}
    assert {name for name in known if not is_modular(name)} <= built


@pytest.mark.parametrize("name", long_but(NAMES, *SHORT))
def test_building_twice_writes_equal_bytes_and_leaves_the_global_random_state(
    name: str, tmp_path: Path
) -> None:
    before = torch.random.get_rng_state()
    build(name, tmp_path / name)
    assert torch.equal(before, torch.random.get_rng_state())
    assert _digests(tmp_path / name) == _digests(tiny(name))


@pytest.mark.parametrize("name", long_but(sorted(SMALLEST), *TYPICAL))
def test_an_unknown_model_is_not_recognised_and_keeps_its_signature(name: str) -> None:
    spec = inspect_model(tiny(name))
    assert spec.preset is None
    given = {n: p.default for n, p in spec.settable().items() if p.default is not None}
    assert given.items() <= spec.defaults().items()
