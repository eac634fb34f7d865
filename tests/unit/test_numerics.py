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
from framefleet.pipeline.model.numerics import VARIABLES, Numerics, Setting, numerics_of
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


def test_on_a_cpu_there_is_nothing_to_choose() -> None:
    found = numerics_of(Options(matmul="no_split_k"), threads=3, device="cpu")
    assert found == Numerics(threads=3)
    assert not found.variables


def test_on_a_gpu_products_are_not_split_unless_a_job_says_so() -> None:
    found = numerics_of(Options(), threads=1, device="cuda:1")
    assert (found.matmul, found.variables) == ("no_split_k", VARIABLES)
    assert not numerics_of(Options(matmul="default"), threads=1, device="cuda").variables


@pytest.mark.parametrize("way", [by_worker, by_script])
def test_a_script_sets_what_a_worker_sets(
    way: Callable[[], list[object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    # a torch without CUDA has none to prefer
    monkeypatch.setattr(torch.backends.cuda, "preferred_blas_library", lambda name: None)
    with ProcessPoolExecutor(1, mp_context=FORKED) as pool:
        assert pool.submit(way).result() == [2, False, True, False, False, False] != in_force()


def test_a_process_that_has_started_cuda_otherwise_is_told_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
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
    with pytest.raises(ModelError, match="was loaded with another"):
        Numerics(threads=1, matmul="default").apply()
    Numerics(threads=1).apply()  # a model beside it, on the CPU
    assert os.environ["CUBLASLT_WORKSPACE_SIZE"] == "1"


def test_a_later_model_loads_though_the_environment_was_restored_after_cuda_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(numerics, "_in_force", [])
    monkeypatch.setattr(Numerics, "settings", lambda _: iter(()))
    with monkeypatch.context() as environment:
        for name in VARIABLES:
            environment.setenv(name, "")
        WANTED.apply()
        monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    WANTED.apply()


def test_a_setting_is_made_and_written_alike() -> None:
    assert str(Setting("backends.cudnn.benchmark", False)) == "torch.backends.cudnn.benchmark = False"
    assert str(Setting("set_num_threads", 1, is_call=True)) == "torch.set_num_threads(1)"
