"""How torch computes in this process: set before the first product, recorded, and written into scripts.

On Hopper and Blackwell, cuBLAS splits long sums into parts whose number depends on the batch. Without
workspace it cannot (vLLM, pull request 40845): `no_split_k`. cuBLAS does not promise this, so the probe still
decides.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from framefleet.pipeline.errors import ModelError
from framefleet.pipeline.model.options.schema import Matmul, Options

DEFAULT: Matmul = "default"
NO_SPLIT_K: Matmul = "no_split_k"
# Eight buffers of 16 KiB, the least that torch calls deterministic, and one KiB: too small for split sums.
VARIABLES = {"CUBLAS_WORKSPACE_CONFIG": ":16:8", "CUBLASLT_WORKSPACE_SIZE": "1"}
_in_force: list[bool] = []  # whether this process sums products without splitting; empty until it is set


@dataclass(frozen=True, slots=True)
class Setting:
    """`torch.name = value`; with is_call, `torch.name(value)`."""

    name: str
    value: Any
    is_call: bool = False

    def make(self) -> None:
        *path, last = self.name.split(".")
        place: Any = functools.reduce(getattr, path, torch)
        if self.is_call:
            getattr(place, last)(self.value)
        else:
            setattr(place, last, self.value)

    def __str__(self) -> str:
        return f"torch.{self.name}({self.value!r})" if self.is_call else f"torch.{self.name} = {self.value!r}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Numerics:
    threads: int  # of torch, on the CPU
    matmul: Matmul | None = None  # how products are summed on a GPU; None without a GPU

    @property
    def variables(self) -> Mapping[str, str]:
        """Environment variables that must be set before CUDA starts."""
        return {} if self.matmul in (None, DEFAULT) else VARIABLES

    def settings(self) -> Iterator[Setting]:
        yield Setting("set_num_threads", self.threads, is_call=True)  # on CPU it chooses kernels
        # Benchmarking picks kernels by the clock, so two runs may differ.
        yield Setting("backends.cudnn.benchmark", False)
        yield Setting("backends.cudnn.deterministic", True)
        if not self.variables:
            return
        yield Setting("backends.cuda.preferred_blas_library", "cublaslt", is_call=True)
        for dtype in ("fp16", "bf16"):  # no sums in half precision, and no split sums
            yield Setting(f"backends.cuda.matmul.allow_{dtype}_reduced_precision_reduction", (False, False))
        # Nobody has shown that cuDNN's attention does not depend on the batch.
        yield Setting("backends.cuda.enable_cudnn_sdp", False, is_call=True)

    def apply(self) -> None:
        """Set them for the whole process. Raises ModelError if CUDA has started with other settings."""
        if self.matmul is not None:
            self._check_in_time()
            os.environ.update(self.variables)
            _in_force[:] = [bool(self.variables)]
        for setting in self.settings():
            setting.make()

    def _check_in_time(self) -> None:
        if _in_force and _in_force != [bool(self.variables)]:
            problem = f"matmul is {self.matmul!r}, but this process loaded a model with another"
            raise ModelError(problem, "load all models of a process with the same `matmul`")
        # Variables from before CUDA started stay in force, even if the environment changes.
        is_set = _in_force or all(os.environ.get(name) == value for name, value in self.variables.items())
        if not is_set and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            values = " ".join(f"{name}={value}" for name, value in self.variables.items())
            raise ModelError(
                f"matmul is {self.matmul!r}, which must be set before CUDA starts, but CUDA has started",
                f"load the model before anything else uses the GPU, or start Python with {values}; "
                f"or set `matmul: {DEFAULT}`",
            )


def numerics_of(options: Options, *, threads: int, device: str) -> Numerics:
    """Return the numerics for a model. device: the resolved one."""
    if not device.startswith("cuda"):
        return Numerics(threads=threads)
    return Numerics(threads=threads, matmul=options.matmul or NO_SPLIT_K)
