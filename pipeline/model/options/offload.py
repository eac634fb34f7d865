"""Move weights away while they are not in use: whole components, or blocks of them.

This changes no bits, except on a CPU for weights that come back from disk: they start at another offset in a
cache line, and kernels may then sum in another order. Why we have our own hooks: docs/why/model_memory.md.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import uuid
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate.hooks import ModelHook, add_hook_to_module
from filelock import FileLock, Timeout
from torch import nn

from framefleet.pipeline.errors import ModelError
from framefleet.pipeline.model.guardrail import Guardrail
from framefleet.pipeline.model.options.pipe_calls import Code, PipeCall
from framefleet.pipeline.model.options.schema import GroupOffload, Offload

OWN_FOLDER = Code("tempfile.mkdtemp()")
PREFIX = "framefleet-weights-"
LOCK = ".lock"
_locks: list[FileLock] = []  # held as long as the process lives: the system releases them when it dies


class AloneOnDevice(ModelHook):  # type: ignore[misc]  # accelerate is not typed
    """Moves its component to the device when it is called, and all others away."""

    def __init__(self, others: Collection[nn.Module], device: str) -> None:
        self._others = others
        # Pipelines put their inputs there. Taken from a tensor, because "cuda" does not equal "cuda:0".
        self.execution_device = torch.empty(0, device=device).device

    def pre_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        if next((tensor.device for tensor in module.parameters()), None) != self.execution_device:
            for other in self._others:
                if other is not module:
                    other.to("cpu")
            module.to(self.execution_device)
        return args, kwargs


def offload(pipe: Any, choice: Offload, *, device: str, denoisers: Collection[str]) -> None:
    """Put the components of a pipeline where `choice` says, in place of `pipe.to(device)`."""
    if isinstance(choice, GroupOffload):
        # One folder for each, because files are named by their place in the component. A new one, because
        # existing files would be taken for these weights.
        try:
            parent = Path(os.path.expanduser(choice.disk or "")).absolute()
            folders = {name: str(own_folder(parent)) for name in denoisers if choice.disk}
        except OSError as error:
            problem = f"offload.disk {choice.disk} cannot be used: {error}"
            raise ModelError(problem, "use a local folder") from error
        names = list(modules_of(pipe))
        for call in group_calls(choice, names, device=device, denoisers=denoisers, folders=folders):
            call.make(pipe)
        return
    modules = modules_of(pipe)
    moving = {name: module for name, module in modules.items() if name not in pipe._exclude_from_cpu_offload}
    for name, module in modules.items():
        if name in moving:
            add_hook_to_module(module, AloneOnDevice(moving.values(), device))
        else:
            module.to(device)


def group_calls(
    choice: GroupOffload,
    components: Collection[str],
    *,
    device: str,
    denoisers: Collection[str],
    folders: Mapping[str, str],
) -> list[PipeCall]:
    """Return the calls that offload in groups: the denoisers as the job says, other components by layer.

    components: all that have weights. folders: for denoisers whose weights are on disk.
    """
    calls = []
    for name in components:
        arguments: dict[str, Any] = {"onload_device": device, "offload_type": "leaf_level"}
        if name in denoisers:
            if choice.level == "block":
                arguments |= {"offload_type": "block_level", "num_blocks_per_group": choice.blocks}
            if choice.stream:
                arguments["use_stream"] = True
            if name in folders:
                arguments["offload_to_disk_path"] = folders[name]
        how = {"module": "diffusers.hooks", "method": "apply_group_offloading"}
        calls.append(PipeCall(**how, component=name, arguments=arguments))
    return calls


def check_offload(choice: Offload, denoisers: Mapping[str, Any], *, device: str | None) -> None:
    """Raise ModelError for an impossible offload. device: None if it is not known yet."""
    is_cuda = device is None or device.startswith("cuda")
    if not isinstance(choice, GroupOffload):
        if not is_cuda:
            raise ModelError("offload model needs a GPU: all weights are in memory here", "leave it out")
        return
    if choice.stream and not is_cuda:
        raise ModelError("offload.stream needs a GPU", "leave it out")
    if choice.blocks > 1 and (choice.stream or choice.level == "leaf"):
        other = "stream" if choice.stream else "level: leaf"
        problem = f"offload.blocks is {choice.blocks}, but with {other} blocks move one by one"
        raise ModelError(problem, "leave it out")
    for module in denoisers.values():
        if not module._supports_group_offloading:
            raise ModelError(f"offload group: {type(module).__name__} does not support it", "use model")


def modules_of(pipe: Any, prefixes: tuple[str, ...] = ("",)) -> dict[str, nn.Module]:
    """Return a pipeline's networks whose names begin with any of these, without guardrails."""
    parts = ((name, part) for name, part in pipe.components.items() if name.startswith(prefixes))
    return {n: part for n, part in parts if isinstance(part, nn.Module) and not isinstance(part, Guardrail)}


def own_folder(parent: Path) -> Path:
    """Return a new folder below `parent`. Raises OSError."""
    parent.mkdir(parents=True, exist_ok=True)
    # Remove folders of processes that have ended. Only folders with a lock next to them are ours.
    for path in parent.glob(f"{PREFIX}*{LOCK}"):
        with contextlib.suppress(Timeout), FileLock(path).acquire(timeout=0):
            shutil.rmtree(path.with_suffix(""), ignore_errors=True)
            path.unlink(missing_ok=True)
    while True:
        folder = parent / f"{PREFIX}{uuid.uuid4().hex}"
        lock = FileLock(f"{folder}{LOCK}")
        with contextlib.suppress(Timeout):  # another process took it for abandoned before it was locked
            lock.acquire(timeout=0)  # before others can see the folder
            break
    _locks.append(lock)
    folder.mkdir()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
