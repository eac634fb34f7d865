"""How torch computes in this process: set before the first product, recorded, and written into scripts.

On Hopper and Blackwell cuBLAS sums long products in as many parts as suit the whole batch. Without workspace
it cannot (vLLM, pull request 40845): `no_split_k`. It promises nothing of that, so the probe stays the judge.
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
# Eight buffers of 16 KiB, the least that torch calls deterministic, and one KiB: no room for sums in parts.
VARIABLES = {"CUBLAS_WORKSPACE_CONFIG": ":16:8", "CUBLASLT_WORKSPACE_SIZE": "1"}
_in_force: list[bool] = []  # whether products of this process are summed in one piece, once that was set


@dataclass(frozen=True, slots=True)
class Setting:
    """`torch.name = value`, or with is_call `torch.name(value)`."""

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
    matmul: Matmul | None = None  # how products are summed on a GPU; None where there is none

    @property
    def variables(self) -> Mapping[str, str]:
        """What the environment of the process holds before CUDA starts."""
        return {} if self.matmul in (None, DEFAULT) else VARIABLES

    def settings(self) -> Iterator[Setting]:
        yield Setting("set_num_threads", self.threads, is_call=True)  # on CPU it chooses kernels
        # Benchmarking picks kernels by the clock, so two runs may differ.
        yield Setting("backends.cudnn.benchmark", False)
        yield Setting("backends.cudnn.deterministic", True)
        if not self.variables:
            return
        yield Setting("backends.cuda.preferred_blas_library", "cublaslt", is_call=True)
        for dtype in ("fp16", "bf16"):  # neither sums of half precision, nor sums in parts
            yield Setting(f"backends.cuda.matmul.allow_{dtype}_reduced_precision_reduction", (False, False))
        # Nobody has shown that cuDNN's attention does not depend on the batch.
        yield Setting("backends.cuda.enable_cudnn_sdp", False, is_call=True)

    def apply(self) -> None:
        """Set it for the whole process. Raises ModelError where CUDA has started with something else."""
        if self.matmul is not None:
            self._check_in_time()
            os.environ.update(self.variables)
            _in_force[:] = [bool(self.variables)]
        for setting in self.settings():
            setting.make()

    def _check_in_time(self) -> None:
        if _in_force and _in_force != [bool(self.variables)]:
            problem = f"matmul is {self.matmul!r}, and a model of this process was loaded with another"
            raise ModelError(problem, "load models of one process with one `matmul`")
        # What was set before CUDA started stays in force, whatever becomes of the environment.
        is_set = _in_force or all(os.environ.get(name) == value for name, value in self.variables.items())
        if not is_set and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            values = " ".join(f"{name}={value}" for name, value in self.variables.items())
            raise ModelError(
                f"matmul is {self.matmul!r}, which must be set before CUDA starts, and it has started",
                f"load the model before anything else uses the GPU, or start Python with {values}; "
                f"or set `matmul: {DEFAULT}`",
            )


def numerics_of(options: Options, *, threads: int, device: str) -> Numerics:
    """Return what a model is to be computed with. device: as it was resolved."""
    if not device.startswith("cuda"):
        return Numerics(threads=threads)
    return Numerics(threads=threads, matmul=options.matmul or NO_SPLIT_K)
