"""Which attention kernel the denoisers use: the job's, or the fastest one that takes their calls.

diffusers' setter also changes the default of the whole process, and does not restore it (0.42). So it is only
called inside `attention_backend`, which restores the default.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from framefleet.pipeline.errors import ModelError
from framefleet.pipeline.memory import is_out_of_memory
from framefleet.pipeline.model.options.schema import DOWNLOADED

log = logging.getLogger(__name__)

AUTO = "auto"
# Fastest first, and only exact ones: sage and similar kernels round attention itself. On Hopper, cuDNN's
# kernel beats FlashAttention 2. A kernel that torch would choose anyway is named too, for records.
CUDNN = "_native_cudnn"
ON_HOPPER = ("_flash_3", CUDNN, "flash", "_native_flash", "native")
ON_CUDA = ("flash", "_native_flash", "native")
ON_CPU = ("_native_flash", "native")
HOPPER = (9, 0)


class AttentionChanged(Exception):
    """A call refused the backend, which was then replaced: rows under way would mix two backends."""


class Attention:
    """The backend of some denoisers. name: the one in use."""

    def __init__(self, modules: Mapping[str, nn.Module], names: Sequence[str]) -> None:
        self._modules, self._names, self.name = modules, list(names), names[0]
        self.use()

    def replace(self, forward: Callable[[], Any], error: Exception) -> None:
        """Raise AttentionChanged if another backend takes a call that failed with this one.

        Otherwise the error comes from the call itself, and nothing changes. Running out of memory does not
        count as a refusal.
        """
        refused, others = self.name, self._names[self._names.index(self.name) + 1 :]
        for name in others if not is_out_of_memory(error) else ():
            self.use(name)
            try:
                forward()
            except Exception as again:  # kernels may raise anything for unsupported calls
                if is_out_of_memory(again):
                    break
                continue
            log.warning("attention: %s refuses a call (%s); using %s from now on", refused, error, name)
            raise AttentionChanged(f"{refused} -> {name}")
        self.use(refused)

    def use(self, name: str | None = None) -> None:
        """Set a backend on the denoisers; by default the current one, which they may have lost."""
        from diffusers import attention_backend

        self.name = name or self.name
        with attention_backend():  # restores the default of the process
            for module in self._modules.values():
                module.set_attention_backend(self.name)  # type: ignore[operator]


def open_attention(wanted: str, modules: Mapping[str, Any], *, device: str) -> Attention | None:
    """Set the backend of the denoisers; None if they have no choice. Raises ModelError if it fails."""
    dtype = next(iter(modules.values())).dtype
    if wanted != AUTO:
        check_works(wanted, device=device, dtype=dtype)
        return Attention(modules, [wanted])
    if not all(map(has_choice, modules.values())):
        log.warning("attention: %s has no choice of backends; it keeps its own", _classes(modules))
        return None
    names = [name for name in candidates(device) if works(name, device=device, dtype=dtype)]
    attention = Attention(modules, names)
    log.info("attention: %s (these work: %s)", attention.name, ", ".join(names))
    return attention


def check_attention(wanted: str, modules: Mapping[str, nn.Module]) -> None:
    """Raise ModelError if a backend does not exist, or the denoisers would ignore it."""
    names = list(backends())
    if wanted not in (AUTO, *names):
        fix = f"use auto, {', '.join(names[:-1])} or {names[-1]}"
        raise ModelError(f"attention {wanted!r} is not one of diffusers' backends", fix)
    if wanted != AUTO and not all(map(has_choice, modules.values())):
        problem = f"attention: {_classes(modules)} has no choice of backends in this diffusers"
        raise ModelError(problem, "leave it out")


def check_works(wanted: str, *, device: str, dtype: torch.dtype) -> None:
    """Raise ModelError if a backend does not work here; the fix lists those that do."""
    if not works(wanted, device=device, dtype=dtype):
        # Without kernels that would have to be downloaded.
        names = (name for name in backends() if not name.endswith(DOWNLOADED))
        usable = ", ".join(name for name in names if works(name, device=device, dtype=dtype))
        fix = f"use auto, or one of {usable}; or install what it needs"
        raise ModelError(f"attention {wanted!r} does not work on {device} in {dtype}", fix)


def candidates(device: str) -> tuple[str, ...]:
    if not device.startswith("cuda"):
        return ON_CPU
    names = ON_HOPPER if torch.cuda.get_device_capability(device) >= HOPPER else ON_CUDA
    # `Numerics` switches it off, unless the job sets `matmul: default`.
    has_cudnn = torch.backends.cuda.cudnn_sdp_enabled()  # type: ignore[no-untyped-call]
    return tuple(name for name in names if has_cudnn or name != CUDNN)


def has_choice(module: nn.Module) -> bool:
    """Return whether a model's attention goes through diffusers' dispatch; in older models it does not."""
    return any(hasattr(getattr(part, "processor", None), "_attention_backend") for part in module.modules())


def works(name: str, *, device: str, dtype: torch.dtype) -> bool:
    """Return whether a backend is installed and takes a small call in this dtype on this device."""
    from diffusers import attention_backend
    from diffusers.models.attention_dispatch import dispatch_attention_fn

    try:
        with attention_backend(name):
            query = torch.zeros(1, 64, 2, 64, device=device, dtype=dtype)  # batch, tokens, heads, width
            dispatch_attention_fn(query, query, query, backend=name)
    except Exception as error:  # RuntimeError for a missing package; kernels may raise anything
        log.debug("attention: %s does not work: %s", name, error)
        return False
    return True


def backends() -> Iterator[str]:
    from diffusers.models.attention_dispatch import AttentionBackendName

    return (backend.value for backend in AttentionBackendName)


def _classes(modules: Mapping[str, nn.Module]) -> str:
    return ", ".join(dict.fromkeys(type(module).__name__ for module in modules.values()))
