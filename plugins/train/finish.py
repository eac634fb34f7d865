"""Writes trained components as `model/`, a diffusers folder for `from_pretrained`, or as a LoRA.

Files of components that were not trained are copied unchanged.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors.torch
import torch
from pydantic import TypeAdapter

from framefleet.api.models import source_of, torch_dtype
from framefleet.api.outputs import Store, read_json
from framefleet.api.texts import parse_json
from framefleet.pipeline.model.specs.model_index import index_file
from framefleet.plugins.train.task import TrainingTask
from framefleet.plugins.train.world import World, whole_tensor

if TYPE_CHECKING:
    from framefleet.plugins.train.run import Training  # which imports this

_MODEL, _MARKER = "model", "finished.json"
# A file is uploaded as one, and read into memory by those who load it.
MAX_FILE_SIZE = "2GB"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A finished training. result: its path in the output."""

    steps: int
    result: str


_FINISHED = TypeAdapter(Finished)


def read_finished(store: Store) -> Finished | None:
    if not store.exists(_MARKER):
        return None
    return read_json(
        store, _MARKER, _FINISHED, fix=f"delete {store.url_of(_MARKER)}, and run the same command"
    )


def write_result(training: Training, task: TrainingTask, world: World) -> None:
    """Write the model or LoRA with the current weights; every process must call this."""
    lora = training.settings.lora
    result = f"{lora.name}.safetensors" if lora else _MODEL
    if lora:
        # The adapters alone, as diffusers' `load_lora_weights` and a job's `loras:` take them.
        from framefleet.plugins.train.freezing import lora_file

        dtype = torch_dtype(training.settings.save_dtype)
        tensors = {name: tensor.to(dtype) for name, tensor in lora_file(task.trained, lora).items()}
        if world.is_first:
            training.store.write(result, safetensors.torch.save(tensors, metadata={"format": "pt"}))
    else:
        _write_model(training, task, world)
    if world.is_first:
        # Last: without it the run does this again.
        content = json.dumps({"steps": training.settings.steps, "result": result})
        training.store.write(_MARKER, content.encode())


def _write_model(training: Training, task: TrainingTask, world: World) -> None:
    """Write the pipeline with its trained components; every process must call this.

    The index goes last: a folder without it is no model.
    """
    source = source_of(training.model).fetch(training.files)
    own = {file for file in training.files if file.partition("/")[0] not in task.trained}
    with tempfile.TemporaryDirectory() as scratch:
        for name, module in task.trained.items():
            component = _gathered(module, torch_dtype(training.settings.save_dtype), world)
            if component is not None:
                component.save_pretrained(Path(scratch, name), max_shard_size=MAX_FILE_SIZE)
                # Without where diffusers loaded it from: equal trainings write equal files on any machine.
                config = Path(scratch, name, "config.json")
                values = parse_json(config.read_text(encoding="utf-8"))
                if values.pop("_name_or_path", None) is not None:
                    config.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        if not world.is_first:
            return
        index = index_file(training.files)
        training.store.delete(f"{_MODEL}/{index}")  # of a shorter training that this one went on with
        for path in sorted(Path(scratch).rglob("*")):
            if path.is_file():
                training.store.upload(f"{_MODEL}/{path.relative_to(scratch).as_posix()}", path)
        for file in [*sorted(own - {index}), index]:
            training.store.upload(f"{_MODEL}/{file}", source / file)


def _gathered(module: Any, dtype: torch.dtype, world: World) -> Any | None:
    """Return the component with all of its weights in `dtype`; None for all processes but the first."""
    weights = {}
    for name, value in module.state_dict().items():  # each by itself: GPUs might not hold them all
        gathered = whole_tensor(value)
        if world.is_first:
            weights[name] = gathered.to("cpu", dtype if gathered.is_floating_point() else None)
    if not world.is_first:
        return None
    kind, config = type(module), module.config
    # As diffusers makes one, or as transformers does.
    copy = kind.from_config(config) if hasattr(kind, "from_config") else kind(config)
    copy.to(dtype).load_state_dict(weights)
    return copy
