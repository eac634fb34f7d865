"""What a job's dtype comes to, by device and preset."""

from __future__ import annotations

from typing import Any

import pytest

from framefleet.pipeline.errors import ModelError
from framefleet.pipeline.model.families.family import Preset
from framefleet.pipeline.model.families.registry import PRESETS, family_of
from framefleet.pipeline.model.specs.dtypes import WITHOUT_PRESET, canonical_dtype, check_dtype, resolved

WAN = next(preset for preset in PRESETS if preset.name == "wan2.1-t2v-1.3b")
COGVIDEOX = next(preset for preset in PRESETS if preset.name == "cogvideox-2b")


@pytest.mark.parametrize(
    ("dtype", "device", "preset", "found"),
    [
        ("auto", "cpu", None, "fp32"),
        ("auto", "cpu", WAN, "fp32"),
        ("auto", "cuda", None, "bf16"),
        ("auto", "cuda:1", WAN, {"default": "bf16", "vae": "fp32"}),
        ("auto", "cuda", COGVIDEOX, "fp16"),
        ("bf16", "cuda", WAN, "bf16"),
        ("bf16", "cpu", WAN, "bf16"),
        ({"text_encoder": "fp32"}, "cuda", WAN, {"default": "bf16", "vae": "fp32", "text_encoder": "fp32"}),
        ({"vae": "bf16"}, "cuda", WAN, "bf16"),
        ({"default": "fp16"}, "cuda", WAN, "fp16"),
        ({"default": "bf16", "vae": "fp32"}, "cpu", None, {"default": "bf16", "vae": "fp32"}),
        ({}, "cuda", WAN, {"default": "bf16", "vae": "fp32"}),
    ],
)
def test_what_is_left_open_is_the_presets_and_what_is_written_counts(
    dtype: Any, device: str, preset: Preset | None, found: Any
) -> None:
    assert resolved(dtype, device=device, auto=preset.auto_dtypes if preset else WITHOUT_PRESET) == found
    assert resolved(found, device=device, auto=WITHOUT_PRESET) == found  # it is left as it is


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("DDPMPipeline", "fp32"),
        ("LDMSuperResolutionPipeline", "fp32"),
        ("LucyEditPipeline", {"default": "bf16", "vae": "fp32"}),
        ("StableDiffusionPipeline", "bf16"),
    ],
)
def test_auto_without_a_preset_is_a_dtype_that_diffusers_renders_in(name: str, found: Any) -> None:
    assert resolved("auto", device="cuda", auto=family_of(name).dtypes) == found
    assert resolved("bf16", device="cuda", auto=family_of(name).dtypes) == "bf16"


def test_equal_wishes_are_spelled_alike() -> None:
    for wish in ("bf16", {"default": "bf16"}, {"default": "bf16", "vae": "bf16"}):
        assert canonical_dtype(wish) == "bf16"
    assert canonical_dtype({}) == canonical_dtype("auto") == "auto"
    for wish in ({"vae": "fp32"}, {"default": "bf16", "vae": "fp32"}):
        assert canonical_dtype(wish) == wish


@pytest.mark.parametrize(
    ("dtype", "problem"),
    [
        ("fp8", "dtype is 'fp8'"),
        ({"default": "auto"}, "dtype of default is 'auto'"),
        ({"vea": "fp32"}, "dtype names 'vea'"),
    ],
)
def test_a_dtype_or_component_that_does_not_exist_is_refused(dtype: Any, problem: str) -> None:
    with pytest.raises(ModelError, match=problem) as caught:
        check_dtype(dtype, ["transformer", "vae"])
    assert caught.value.fix.startswith("use one of")
