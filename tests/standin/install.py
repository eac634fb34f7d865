"""Puts the stand-in in the place of CUDA for this process: `torch.cuda`, as far as it is used."""

from __future__ import annotations

import ctypes
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import torch
from torch.overrides import _get_current_function_mode_stack
from torch.utils._device import DeviceContext, _device_constructors

from tests.standin import tensor
from tests.standin.generator import Generator
from tests.standin.gpu import CAPABILITY, NAME, Device, GPUs
from tests.standin.tensor import gpus

_CUDA, _META = 1, 14  # c10::DeviceType
_LIBRARIES: list[Any] = []  # what overrides torch's dispatcher lasts as long as these


class Event:
    def __init__(self, **_: Any) -> None:
        self._at: float | None = None
        self._stream = Stream()

    def record(self, stream: Stream | None = None) -> None:
        gpus.check()
        self._stream = stream or Stream.current()
        self._at = max(time.perf_counter(), gpus.devices[self._stream.device_index].ready_at)

    def query(self) -> bool:
        gpus.check()
        return self._at is None or time.perf_counter() >= self._at

    def synchronize(self) -> None:
        self._stream.synchronize()

    def wait(self, stream: Any = None) -> None:
        gpus.check()

    def elapsed_time(self, other: Event) -> float:
        gpus.check()
        assert self._at is not None and other._at is not None, "Both events must be recorded"
        return (other._at - self._at) * 1000


class Stream:
    _numbers = count(1)

    def __init__(self, device: Any = None, *, number: int | None = None, **_: Any) -> None:
        self.device_index = gpus.index(device)
        self.device = torch.device("cuda", self.device_index)
        self.number = next(self._numbers) if number is None else number

    @classmethod
    def current(cls, device: Any = None) -> Self:
        return cls(device, number=gpus.stream)

    def wait_stream(self, other: Stream) -> None:
        gpus.check()

    def wait_event(self, event: Event) -> None:
        gpus.check()

    def synchronize(self) -> None:
        gpus.wait(self.device_index, "stream", self.number)

    def query(self) -> bool:
        gpus.check()
        return time.perf_counter() >= gpus.devices[self.device_index].ready_at

    def record_event(self, event: Event | None = None) -> Event:
        event = event or Event()
        event.record(self)
        return event


@contextmanager
def _in_stream(stream: Stream | None) -> Iterator[None]:
    before = gpus.stream
    gpus.stream = stream.number if stream else before
    try:
        yield
    finally:
        gpus.stream = before


@contextmanager
def _on_device(device: Any) -> Iterator[None]:
    before = gpus.current
    gpus.current = gpus.index(device)
    try:
        yield
    finally:
        gpus.current = before


def install(num_devices: int = 2) -> GPUs:
    """Install it once; return the devices, to have things go wrong on them."""
    gpus.devices[:] = map(Device, range(num_devices))
    if _LIBRARIES:
        return gpus
    _device_constructors()  # `with torch.device(...)` remembers functions, so before they are replaced
    _LIBRARIES.append(torch.library.Library("_", "IMPL"))
    _LIBRARIES[0].fallback(lambda op, *args, **kwargs: tensor.run(op, args, kwargs), "CUDA")
    _guard()
    Generator.index_of = staticmethod(gpus.index)
    torch.Generator = Generator  # type: ignore[misc]
    torch.__future__.set_overwrite_module_params_on_conversion(
        True
    )  # `param.data =` would lose the inner one
    for name, value in {**_basics(), **_memory(), **_randomness(num_devices)}.items():
        setattr(torch.cuda, name, value)
    torch.cuda.random._lazy_init = gpus.start  # type: ignore[attr-defined]
    torch.backends.cuda.preferred_blas_library = _blas
    torch.Tensor.record_stream = lambda self, stream: None  # type: ignore[method-assign, assignment]
    torch.Tensor.pin_memory = lambda self, device=None: _pinned(self.clone())  # type: ignore[method-assign]
    torch.Tensor.cuda = lambda self, device=None, **kwargs: self.to(  # type: ignore[method-assign, assignment]
        torch.device("cuda", gpus.index(device)), **kwargs
    )
    torch.Tensor.to = _to(torch.Tensor.to)  # type: ignore[method-assign]
    for name in ("tensor", "as_tensor", "arange", "eye"):
        _made_on_host(name)
    _pinning("empty")
    return gpus


def is_installed() -> bool:
    return bool(_LIBRARIES)


def _guard() -> None:
    """Give CUDA the device guard of "meta", which does nothing: a torch for the CPU has none, and aborts."""
    library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libc10.so"))
    guards = (ctypes.c_void_p * (_META + 1)).in_dll(library, "_ZN3c104impl26device_guard_impl_registryE")
    guards[_CUDA] = guards[_META]


def _basics() -> dict[str, Any]:
    return {
        "_lazy_init": gpus.start,
        "_lazy_call": lambda call, **_: call(),
        "is_available": lambda: True,
        "is_initialized": lambda: gpus.is_initialized,
        "device_count": lambda: len(gpus.devices),
        "current_device": lambda: gpus.current,
        "set_device": lambda device: setattr(gpus, "current", gpus.index(device)),
        "synchronize": lambda device=None: gpus.wait(gpus.index(device), "synchronize"),
        "Event": Event,
        "Stream": Stream,
        "current_stream": Stream.current,
        "default_stream": lambda device=None: Stream(device, number=0),
        "stream": _in_stream,
        "device": _on_device,
        "get_device_name": lambda device=None: NAME,
        "get_device_capability": lambda device=None: CAPABILITY,
        "get_device_properties": lambda device=None: SimpleNamespace(
            name=NAME, major=CAPABILITY[0], minor=CAPABILITY[1], multi_processor_count=132,
            total_memory=_device(device).capacity,
        ),
        "is_bf16_supported": lambda *_: True,
    }  # fmt: skip


def _memory() -> dict[str, Any]:
    def used(device: Any = None) -> int:
        _device(device).sweep()
        return _device(device).used

    def set_fraction(fraction: float, device: Any = None) -> None:
        _device(device).allowed = int(fraction * _device(device).capacity)

    return {
        "empty_cache": gpus.check,
        "memory_allocated": used,
        "memory_reserved": used,
        "max_memory_allocated": lambda device=None: _device(device).peak,
        "max_memory_reserved": lambda device=None: _device(device).peak,
        "reset_peak_memory_stats": lambda device=None: setattr(_device(device), "peak", used(device)),
        "memory_stats": lambda device=None: {"num_ooms": _device(device).num_ooms},
        "memory_stats_as_nested_dict": lambda device=None: {"num_ooms": _device(device).num_ooms},
        "mem_get_info": lambda device=None: (_device(device).free, _device(device).capacity),
        "set_per_process_memory_fraction": set_fraction,
    }


def _randomness(num_devices: int) -> dict[str, Any]:
    generators = tuple(Generator(torch.device("cuda", index)) for index in range(num_devices))
    return {
        "default_generators": generators,
        "manual_seed": lambda seed: generators[gpus.current].manual_seed(seed),
        "manual_seed_all": lambda seed: [generator.manual_seed(seed) for generator in generators],
    }


def _device(device: Any) -> Device:
    return gpus.devices[gpus.index(device)]


def _blas(backend: Any = None) -> Any:
    if backend is not None:
        gpus.blas = getattr(torch._C._BlasBackend, str(backend).capitalize(), backend)
    return gpus.blas


def _to(original: Any) -> Any:
    """Return a way to a device that names the current device itself: the guard cannot."""

    def to(self: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        named = {name: _indexed(value) for name, value in kwargs.items()}
        return original(self, *map(_indexed, args), **named)  # type: ignore[no-any-return]

    return to


def _indexed(value: Any) -> Any:
    is_bare = value == "cuda" if isinstance(value, str) else value == torch.device("cuda")
    return torch.device("cuda", gpus.current) if is_bare else value


def _made_on_host(name: str) -> None:
    """Send what a function makes to its device: it copies by no dispatcher, or resizes what it has made."""
    original = getattr(torch, name)

    def made(*args: Any, device: Any = None, **kwargs: Any) -> torch.Tensor:
        device = _of_context() if device is None else device
        if device is None or torch.device(device).type != "cuda":
            return original(*args, device=device, **kwargs)
        return original(*args, device="cpu", **kwargs).to(torch.device("cuda", gpus.index(device)))

    setattr(torch, name, made)


def _of_context() -> torch.device | None:
    """Return the device of the innermost `with torch.device(...)`."""
    modes = reversed(_get_current_function_mode_stack())
    return next((mode.device for mode in modes if isinstance(mode, DeviceContext)), None)


def _pinning(name: str) -> None:
    original = getattr(torch, name)

    def made(*args: Any, pin_memory: bool = False, **kwargs: Any) -> torch.Tensor:
        found = original(*args, **kwargs)
        return _pinned(found) if pin_memory else found

    setattr(torch, name, made)


def _pinned(made: torch.Tensor) -> torch.Tensor:
    address = made.untyped_storage()._cdata
    tensor.PINNED.add(address)
    weakref.finalize(made, tensor.PINNED.discard, address)
    return made
