"""What torch keeps for a whole process or thread, and a call may switch: compared, and switched back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
from diffusers.models import attention_dispatch


class _Mode(NamedTuple):
    name: str
    get: Callable[[], Any]
    put: Callable[[Any], Any]


def _attribute(owner: Any, name: str) -> _Mode:
    return _Mode(name, lambda: getattr(owner, name), lambda value: setattr(owner, name, value))


def _autocast(device: str) -> Iterator[_Mode]:
    yield _Mode(
        f"autocast of {device}",
        lambda: torch.is_autocast_enabled(device),
        lambda value: torch.set_autocast_enabled(device, value),
    )
    yield _Mode(
        f"autocast's dtype of {device}",
        lambda: torch.get_autocast_dtype(device),
        lambda value: torch.set_autocast_dtype(device, value),
    )


_MODES = (
    _Mode("the default dtype", torch.get_default_dtype, torch.set_default_dtype),
    _Mode("the default device", torch.get_default_device, torch.set_default_device),
    _Mode("the number of threads", torch.get_num_threads, torch.set_num_threads),
    _Mode(
        "the use of deterministic algorithms",
        torch.are_deterministic_algorithms_enabled,
        torch.use_deterministic_algorithms,
    ),
    *(  # by torch's own names: its older ones raise once these were used
        _Mode(
            f"the precision of float32 products of {name}",
            partial(getattr, backend.matmul, "fp32_precision"),
            partial(setattr, backend.matmul, "fp32_precision"),
        )
        for name, backend in (("cuda", torch.backends.cuda), ("mkldnn", torch.backends.mkldnn))
    ),
    *_autocast("cpu"),
    *_autocast("cuda"),
    *(_attribute(torch.backends.cudnn, name) for name in ("enabled", "benchmark", "deterministic")),
    _attribute(torch.backends.mkldnn, "enabled"),
    *(
        _Mode(
            f"{name} attention",
            getattr(torch.backends.cuda, f"{name}_sdp_enabled"),
            getattr(torch.backends.cuda, f"enable_{name}_sdp"),
        )
        for name in ("flash", "mem_efficient", "math", "cudnn")
    ),
    # Modes that see each operation, as a counter of operations does; torch has no public word on them (2.13).
    _Mode("modes of dispatch", torch._C._len_torch_dispatch_stack, lambda _: None),
    _Mode("modes of torch's functions", torch._C._len_torch_function_stack, lambda _: None),
    # The backend that `diffusers.attention_backend(...)` chooses for a block; it has no public getter (0.42).
    _attribute(attention_dispatch._AttentionBackendRegistry, "_active_backend"),
)


class TorchModes:
    """The modes as they were when this was made."""

    def __init__(self) -> None:
        self._values = self._now()

    def differences(self) -> Iterator[str]:
        """Yield what was switched."""
        now = self._now()
        if now != self._values:
            pairs = zip(_MODES, self._values, now, strict=True)
            yield from (
                f"{mode.name} ({then} before, {value} now)" for mode, then, value in pairs if then != value
            )

    def restore(self) -> None:
        for mode, then, now in zip(_MODES, self._values, self._now(), strict=True):
            if then != now:
                mode.put(then)

    def _now(self) -> list[Any]:
        return [mode.get() for mode in _MODES]
