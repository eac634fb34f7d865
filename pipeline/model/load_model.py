"""Load a model for a Python program. Imports torch only when it is called."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from framefleet.pipeline.guards.arguments import AtLeastOne
from framefleet.pipeline.model.device_placement import Placement, placement_of
from framefleet.pipeline.model.ip_adapter import IpAdapter, ip_adapter_of
from framefleet.pipeline.model.lora import Lora, loras_of
from framefleet.pipeline.model.model import Model, ModelSettings
from framefleet.pipeline.model.options.schema import read_options
from framefleet.pipeline.model.options.torchao_import import keep_import_warnings
from framefleet.pipeline.model.sources.parts import ModelPart, base_and_parts
from framefleet.pipeline.model.specs.dtypes import DType, DTypeName, check_dtype, without_torch

if TYPE_CHECKING:
    import torch


def load_model(
    path: str | Path,
    *,
    revision: str | None = None,
    base: str | Path | None = None,
    parts: Mapping[str, str | Path | Mapping[str, Any] | ModelPart] | None = None,
    lock: str | Path | None = None,
    allow_pickle: bool = False,
    storage_options: Mapping[str, Any] | None = None,
    dtype: DType | torch.dtype | Mapping[str, DTypeName | torch.dtype] = "auto",
    device: str | torch.device = "auto",
    threads: AtLeastOne = 1,
    placement: Placement | Mapping[str, Any] | str | None = None,
    loras: Mapping[str, str | Path | Mapping[str, Any] | Lora] | None = None,
    ip_adapter: Mapping[str, Any] | IpAdapter | None = None,
    **options: Any,
) -> Model:
    """Load a diffusers pipeline for rendering.

    path: a folder, `org/name` of the hub, or a URL that fsspec opens; or a single file with weights, for
    which `base` has the configs, tokenizers and whatever else the file lacks. revision: branch, tag or commit
    on the hub. parts: files with weights of single components, e.g. {"transformer": "wan-Q4_K_M.gguf"}. lock:
    the lock file that the files must match, if not the model's own. allow_pickle: load pickles of tensors if
    there are no safetensors. dtype: auto, fp32, fp16, bf16, or a torch dtype; or one for each component, e.g.
    {"default": "bf16", "vae": "fp32"}. placement: how the model uses several devices, as below `model:` in a
    job; see docs/several_gpus.md. loras: by the name that requests use, each a path or a mapping, as below
    `loras:` in a job. ip_adapter, options: as below `model:` in a job, e.g. `offload="group"`.
    Sets torch's numerics for the whole process; on a GPU, call it before anything else uses the GPU.
    Raises ModelError if the model is incomplete, corrupted, not the locked one, or has only pickles.
    """
    plain: DType = without_torch(dtype)
    check_dtype(plain, [*plain] if isinstance(plain, Mapping) else [])
    keep_import_warnings()
    from framefleet.pipeline.model.load import load

    place, files = base_and_parts(str(path), str(base) if base else None, parts or {})
    settings = ModelSettings(
        path=place,
        parts=files,
        revision=revision,
        lock=str(lock) if lock is not None else None,
        allow_pickle=allow_pickle,
        storage_options=dict(storage_options or {}),
        dtype=plain,
        device=str(device),
        threads=threads,
        placement=placement_of(placement),
        loras=loras_of(loras or {}),
        ip_adapter=ip_adapter_of(ip_adapter),
        options=read_options(options),
    )
    return load(settings)
