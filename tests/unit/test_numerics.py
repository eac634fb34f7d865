"""How torch is to compute, as one value: what a worker sets and what a script says are the same lines."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

import pytest
import torch

from framefleet.pipeline.errors import ModelError
from framefleet.pipeline.model import numerics
from framefleet.pipeline.model.numerics import VARIABLES, Numerics, numerics_of
from framefleet.pipeline.model.options.schema import Options

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
