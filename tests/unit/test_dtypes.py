"""What a job's dtype comes to by device and preset, and the numbers of devices that differ."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import pytest
import torch

from framefleet.pipeline.errors import ModelError
from framefleet.pipeline.model import numerics
from framefleet.pipeline.model.families.family import Preset
from framefleet.pipeline.model.families.registry import PRESETS, family_of
from framefleet.pipeline.model.numerics import VARIABLES, Numerics, numerics_of
from framefleet.pipeline.model.options.schema import Options
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


WANTED = Numerics(threads=2, matmul="no_split_k")
FORKED = multiprocessing.get_context("fork")  # a process of its own, which has torch


def in_force() -> list[object]:
    matmul = torch.backends.cuda.matmul
    return [
        torch.get_num_threads(),
        torch.backends.cudnn.benchmark,
        torch.backends.cudnn.deterministic,
        matmul.allow_fp16_reduced_precision_reduction,
        matmul.allow_bf16_reduced_precision_reduction,
        torch.backends.cuda.cudnn_sdp_enabled(),
    ]


def by_worker() -> list[object]:
    WANTED.apply()
    return in_force()


def by_script() -> list[object]:
    exec("\n".join(map(str, WANTED.settings())))
    return in_force()


@pytest.mark.parametrize(
    ("matmul", "device", "found"),
    [
        ("no_split_k", "cpu", Numerics(threads=3)),
        ("", "cuda:1", Numerics(threads=3, matmul="no_split_k")),
        ("default", "cuda", Numerics(threads=3, matmul="default")),
    ],
)
def test_on_a_gpu_products_are_split_only_for_a_job(matmul: str, device: str, found: Numerics) -> None:
    options = Options.model_validate({"matmul": matmul} if matmul else {})
    assert numerics_of(options, threads=3, device=device) == found
    assert found.variables == (VARIABLES if found.matmul == "no_split_k" else {})


@pytest.mark.parametrize("way", [by_worker, by_script])
def test_both_set_the_same(way: Callable[[], list[object]], monkeypatch: pytest.MonkeyPatch) -> None:
    # a torch without CUDA has none to prefer
    monkeypatch.setattr(torch.backends.cuda, "preferred_blas_library", lambda name: None)
    with ProcessPoolExecutor(1, mp_context=FORKED) as pool:
        assert pool.submit(way).result() == [2, False, True, False, False, False] != in_force()


def test_a_process_that_started_cuda_otherwise_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(numerics, "_in_force", [])
    monkeypatch.setattr(Numerics, "settings", lambda _: iter(()))
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    wanted = Numerics(threads=1, matmul="no_split_k")
    with pytest.raises(ModelError, match="must be set before CUDA starts") as caught:
        wanted.apply()
    assert "CUBLAS_WORKSPACE_CONFIG=:16:8 CUBLASLT_WORKSPACE_SIZE=1" in caught.value.fix
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    wanted.apply()
    with pytest.raises(ModelError, match="loaded a model with another"):
        Numerics(threads=1, matmul="default").apply()
    Numerics(threads=1).apply()  # a model beside it, on the CPU
    assert os.environ["CUBLASLT_WORKSPACE_SIZE"] == "1"
