"""From a diffusers pipeline folder to a model that is ready to render."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import nn

from framefleet.pipeline.environment import environment, set_numerics
from framefleet.pipeline.errors import ModelError
from framefleet.pipeline.integrity import file_digests, loaded_files, model_digest
from framefleet.pipeline.spec import PipelineSpec, inspect_model

log = logging.getLogger(__name__)

DType = Literal["auto", "fp32", "fp16", "bf16"]
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
# The components whose forwards are most of the work, and run once for each step and row.
DENOISERS = ("transformer", "unet", "prior")
TEXT_ENCODERS = ("text_encoder",)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    """What a job says about its model.

    path: a diffusers pipeline folder. dtype: auto is bf16 on a GPU and fp32 on a CPU.
    device: auto is the GPU where there is one. threads: of torch, on the CPU.
    """

    path: str
    dtype: DType = "auto"
    device: str = "auto"
    threads: int = 1

    def numerics(self, mode: str) -> dict[str, str | int]:
        """What of it decides the frames: part of every row's identity."""
        return {"dtype": self.dtype, "threads": self.threads, "batching": mode, "generator": "cpu"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A loaded pipeline, and what identifies it.

    digest: of all files loaded; digests: of each. environment: see `environment`.
    """

    settings: ModelSettings
    pipe: Any
    spec: PipelineSpec
    digests: Mapping[str, str]
    digest: str
    environment: Mapping[str, str | int]

    def denoisers(self) -> dict[str, nn.Module]:
        return self._modules(DENOISERS)

    def text_encoders(self) -> dict[str, nn.Module]:
        return self._modules(TEXT_ENCODERS)

    def _modules(self, prefixes: tuple[str, ...]) -> dict[str, nn.Module]:
        components = self.pipe.components.items()
        return {name: c for name, c in components if name.startswith(prefixes) and isinstance(c, nn.Module)}


def load_model(path: str | Path, *, dtype: DType = "auto", device: str = "auto", threads: int = 1) -> Model:
    """Load a diffusers pipeline folder for rendering.

    Sets the number of torch's threads for the whole process: on CPU it chooses kernels. Raises ModelError
    when the folder is incomplete, corrupted, or holds pickles only.
    """
    return load(ModelSettings(path=str(path), dtype=dtype, device=device, threads=threads))


def load(settings: ModelSettings) -> Model:
    """Load what `settings` say; see `load_model`."""
    if settings.dtype not in get_args(DType):
        raise ModelError(f"dtype is {settings.dtype!r}", f"use one of {', '.join(get_args(DType))}")
    folder = Path(settings.path)
    spec = inspect_model(folder)
    digests = model_files(folder)
    device = _device(settings.device)
    dtype = ("bf16" if device.startswith("cuda") else "fp32") if settings.dtype == "auto" else settings.dtype
    set_numerics(threads=settings.threads)
    # The concrete class: DiffusionPipeline.from_pretrained drops components it is handed (diffusers 0.42).
    try:
        pipe = spec.pipeline_class.from_pretrained(
            folder, dtype=DTYPES[dtype], use_safetensors=True, local_files_only=True
        )
    except (OSError, ValueError) as error:  # files that are missing, or that do not fit each other
        raise ModelError(f"{folder} cannot be loaded: {error}", "fetch the model again") from error
    pipe.to(device)
    pipe.set_progress_bar_config(disable=True)
    return Model(
        settings=settings,
        pipe=pipe,
        spec=spec,
        digests=digests,
        digest=model_digest(digests),
        environment=environment(device, dtype),
    )


def model_files(folder: Path) -> dict[str, str]:
    """Return every file that loading `folder` reads, with its SHA-256; opens no weights."""
    index = json.loads((folder / "model_index.json").read_text())
    names = [name for name, value in index.items() if isinstance(value, list) and value[0] is not None]
    return file_digests(folder, loaded_files(folder, names))


def _device(name: str) -> str:
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:  # torch asserts where it was built without CUDA
        raise ModelError(f"device {name!r} cannot be used: {error}", "use cpu, or auto") from error
    return name
