"""Weights that wait in host memory. `meta` stands for the GPU: what runs there has shapes, and no values."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from framefleet.pipeline.memory import is_out_of_memory
from framefleet.pipeline.render.text_encoders import Parked, is_on_gpu


class Encoder(nn.Module):
    """Two embeddings that share a weight, and a buffer."""

    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Embedding(8, 4)
        self.second = nn.Embedding(8, 4)
        self.second.weight = self.first.weight
        self.register_buffer("scale", torch.ones(4))

    def forward(self, ids: Tensor, *, mask: Tensor | None = None, name: str = "") -> dict[str, Any]:
        assert mask is None or mask.device == ids.device
        return {"state": (self.first(ids) + self.second(ids)) * self.scale, "name": name}

    def devices(self) -> set[str]:
        return {weight.device.type for weight in [*self.parameters(), *self.buffers()]}


@pytest.fixture
def encoder() -> Encoder:
    with torch.random.fork_rng():
        return Encoder().eval()


@pytest.fixture
def parked(encoder: Encoder) -> Parked:
    found = Parked({"text_encoder": encoder}, "meta")
    found.leave()
    return found


IDS = torch.tensor([[1, 2]])


def test_weights_are_on_the_device_from_a_call_until_they_leave(
    encoder: Encoder, parked: Parked, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="framefleet.pipeline.render.text_encoders")
    assert encoder.devices() == {"cpu"} and not is_on_gpu(encoder)
    with torch.no_grad():
        output = parked.run("text_encoder", encoder.forward, IDS, mask=IDS, name="猫")
    assert (output["state"].device.type, output["name"]) == ("meta", "猫")
    assert encoder.devices() == {"meta"} and is_on_gpu(encoder)
    parked.leave()
    parked.leave()
    assert encoder.devices() == {"cpu"}
    assert caplog.messages == ["text_encoder left meta and freed 144 bytes"]  # 8 * 4 + 4 floats
    parked.bring()
    assert encoder.devices() == {"meta"}


def test_values_and_shared_weights_are_the_same_afterwards(encoder: Encoder, parked: Parked) -> None:
    with torch.no_grad():
        before, weight = encoder(IDS)["state"], encoder.first.weight
        for _ in range(3):
            parked.run("text_encoder", encoder.forward, IDS)
            assert encoder.first.weight is encoder.second.weight is weight
            parked.leave()
        assert torch.equal(encoder(IDS)["state"], before)
    assert isinstance(weight, nn.Parameter) and weight.requires_grad


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("HIP out of memory. Tried to allocate 2.00 GiB."),
        torch.AcceleratorError("CUDA error: out of memory\nCUDA kernel errors might be asynchronous"),
        RuntimeError("CUDA driver error: out of memory"),
        RuntimeError("HIP error: out of memory"),
        RuntimeError("Triton Error [CUDA]: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
        RuntimeError("CUDA error: HIPBLAS_STATUS_ALLOC_FAILED when calling `hipblasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED"),
        RuntimeError("CUDA_ERROR_OUT_OF_MEMORY"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
    ],
    ids=str,
)
def test_memory_that_runs_out_is_known_whoever_says_so(error: Exception) -> None:
    assert is_out_of_memory(error)


def test_other_errors_are_not_taken_for_it() -> None:
    for said in ("CUDA error: an illegal memory access was encountered", "out of range"):
        assert not is_out_of_memory(RuntimeError(said))
