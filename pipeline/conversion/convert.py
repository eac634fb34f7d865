"""From a checkpoint as its authors ship it to a pipeline folder that renders: `framefleet model convert`.

Streamed: components are written one after the other, tensor by tensor, from a mapped file.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import diffusers
import torch
from torch import Tensor
from transformers import PreTrainedModel

from framefleet.pipeline.conversion.checkpoint import Checkpoint, open_checkpoint
from framefleet.pipeline.conversion.plan import Conversion, Converter, Network, check
from framefleet.pipeline.conversion.safetensors_file import write_safetensors
from framefleet.pipeline.errors import ModelError
from framefleet.pipeline.specs.model_index import INDEX

# module:function, asked in turn.
CONVERTERS = (
    "framefleet.pipeline.models.crafter.convert:convert_crafter",
    "framefleet.pipeline.models.opensora.convert:convert_opensora",
)
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def convert(
    path: Path,
    folder: Path,
    *,
    variant: str | None = None,
    dtype: str | None = None,
    given: Mapping[str, Any] | None = None,
) -> Conversion:
    """Write the pipeline folder of the checkpoint at `path`; `folder` appears when it is complete.

    variant: which model it is, where its tensors do not tell. dtype: of the weights; without it, as they are.
    given: values of configs that go before what the tensors tell, as {"vae.norm_num_groups": 8}.
    Raises ModelError for a checkpoint that is not known, and for tensors too many, missing or misshapen.
    """
    if dtype not in (None, *DTYPES):
        raise ModelError(f"dtype is {dtype!r}", f"use one of {', '.join(DTYPES)}")
    if folder.exists():
        raise ModelError(f"{folder} is there already", "name a folder that is not")
    checkpoint = open_checkpoint(path)
    conversion = plan(checkpoint, variant=variant, given=given)
    check(conversion, checkpoint)
    partial = folder.with_name(f".{folder.name}.partial")  # of an attempt that was cut short
    shutil.rmtree(partial, ignore_errors=True)
    try:
        write(conversion, checkpoint, partial, dtype=dtype)
        partial.rename(folder)
    except OSError as error:
        raise ModelError(
            f"{folder} cannot be written: {error}", "free space, or name another folder"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return conversion


def plan(
    checkpoint: Checkpoint, *, variant: str | None = None, given: Mapping[str, Any] | None = None
) -> Conversion:
    """Return what the first converter that knows it makes of a checkpoint."""
    for converter in _converters():
        conversion = converter(checkpoint, variant=variant, given=given or {})
        if conversion is not None:
            return conversion
    raise ModelError(
        f"{checkpoint.path} is of no model that is known, its {len(checkpoint.shapes)} tensors start with "
        f"{next(iter(checkpoint.shapes), 'none')}",
        "give the original checkpoint of VideoCrafter or DynamiCrafter, or the folder of Open-Sora v2",
    )


def write(conversion: Conversion, checkpoint: Checkpoint, folder: Path, *, dtype: str | None = None) -> None:
    """Write all components and model_index.json into `folder`."""
    index: dict[str, object] = {
        "_class_name": conversion.pipeline.__name__,
        "_diffusers_version": diffusers.__version__,
        **conversion.settings,
    }
    for name, network in conversion.networks.items():
        write_network(network, checkpoint, folder / name, DTYPES[dtype] if dtype else None)
        index[name] = _entry(network.module)
    for name, component in conversion.others.items():
        component.save_pretrained(str(folder / name))
        index[name] = _entry(component)
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _converters() -> Iterator[Converter]:
    for name in CONVERTERS:
        module, _, function = name.partition(":")
        yield getattr(import_module(module), function)


def write_network(network: Network, checkpoint: Checkpoint, folder: Path, dtype: torch.dtype | None) -> None:
    """Write config and weights under the names that the component's library looks for."""
    folder.mkdir(parents=True)

    def cast(name: str, read: Callable[[str], Tensor]) -> Tensor:
        changed = network.origins[name].take(read)
        return changed.to(dtype) if dtype and changed.is_floating_point() else changed

    shapes = {name: cast(name, checkpoint.shapes.__getitem__) for name in network.module.state_dict()}
    if isinstance(network.module, PreTrainedModel):
        network.module.config.architectures = [type(network.module).__name__]
        network.module.config.save_pretrained(folder)
    else:
        network.module.save_config(folder)  # type: ignore[operator]  # diffusers' ConfigMixin
    file = folder / (
        "model.safetensors"
        if isinstance(network.module, PreTrainedModel)
        else "diffusion_pytorch_model.safetensors"
    )
    write_safetensors(file, shapes, lambda name: cast(name, checkpoint.read))


def _entry(component: object) -> list[str]:
    """Return [library, class] as diffusers' `save_pretrained` writes it: a class of ours by its module."""
    library, _, _ = type(component).__module__.partition(".")
    named = library if library in ("diffusers", "transformers") else type(component).__module__
    return [named, type(component).__name__]
