"""From files with weights, and the pipeline that they were made for, to one folder with plain weights."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from framefleet.pipeline.model.model import ModelSettings, source_of, weights_of
from framefleet.pipeline.model.sources.parts import ModelPart, base_and_parts, by_component
from framefleet.pipeline.model.sources.single_file import SingleFile
from framefleet.pipeline.model.sources.verified_folder import alone
from framefleet.pipeline.model.specs.dtypes import torch_dtype
from framefleet.pipeline.model.specs.spec import inspect_model
from framefleet.plugins.ports.conversion.convert import check_new, whole_folder


def convert_parts(
    path: str,
    folder: Path,
    *,
    base: str | None = None,
    parts: Mapping[str, str | ModelPart],
    dtype: str | None,
) -> tuple[str, list[str]]:
    """Write a pipeline folder with plain safetensors; return its class, and the components of the files.

    path, base, parts: as below `model:` in a job. dtype: of the components that come from files; without it,
    fp32 for what is packed, else as the file has it.
    Raises ModelError for files that a job would not render with.
    """
    check_new(folder)
    place, files = base_and_parts(path, base, parts)
    settings = ModelSettings(path=place, parts=files)
    source = source_of(settings)
    weights = weights_of(settings, source)
    configs = weights.configs(is_built=True)
    stored, digests = weights.fetched()
    by_name = by_component(weights.parts, weights.components)
    opened = {part.key: SingleFile(part.fetched(), part.is_gguf, part.where) for part in by_name.values()}
    unpacked = sum(tensor.num_parameters for part in weights.parts for tensor in part.tensors)
    with whole_folder(folder, 4 * unpacked + weights.stored_bytes()) as new, alone():
        for name in digests.keys() - opened.keys():
            (new / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(stored / name, new / name)
        for component in weights.components:
            if component.name in by_name:
                part = by_name[component.name]
                chosen = torch_dtype(dtype) if dtype else _dtype_of(part.tensors[0].dtype)
                network: Any = opened[part.key].network(component, configs, chosen, None)
                if part.is_gguf:
                    network.dequantize()
                    network.to(chosen)
                network.save_pretrained(new / component.name)
        for file in opened.values():
            file.check_all_placed(allow_unmatched=False)
    return inspect_model(folder).class_name, [*by_name]


def _dtype_of(name: str) -> torch.dtype:
    return {"F16": torch.float16, "BF16": torch.bfloat16}.get(name, torch.float32)
