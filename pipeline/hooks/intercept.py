"""Put a function around methods of modules for a while, and take it away again.

An attribute on the instance shadows the class's method; `nn.Module.__call__` looks `forward` up on the
instance, as accelerate's hooks rely on too. Nothing stays on the model when the block ends.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from types import MethodType
from typing import Any, TypeVar

Around = Callable[..., Any]  # called as around(name, original, *args, **kwargs)


class Interception(partial[Any]):
    """What is called in place of a method. shadowed: what the object itself had there before."""

    shadowed: Any = None

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """Let a copy of the object have the original method, of its own."""
        return copy.deepcopy(self._original, memo)

    def __reduce__(self) -> Any:
        """Let a pickle of the object have it, too."""
        original = self._original
        if isinstance(original, MethodType):
            return getattr, (original.__self__, original.__name__)
        return partial, (original,)

    @property
    def _original(self) -> Any:
        original = self.__wrapped__  # type: ignore[attr-defined]
        return original._original if isinstance(original, Interception) else original


@contextmanager
def intercept(objects: Mapping[str, Any], around: Around, *, method: str = "forward") -> Iterator[None]:
    """Call `around(name, original, ...)` in place of `method` of each object while the block runs."""
    shadowed: list[tuple[Any, Any]] = []
    try:
        for name, target in objects.items():
            original, before = getattr(target, method), vars(target).get(method)
            shadowed.append((target, before))
            instead = Interception(around, name, original)
            # `inspect.signature` reads the original's, as modular denoisers and Stable Video Diffusion do.
            instead.__wrapped__ = original  # type: ignore[attr-defined]
            instead.shadowed = before
            # object.__setattr__: nn.Module's own setter would search its parameters and buffers each time
            object.__setattr__(target, method, instead)
        yield
    finally:
        for target, before in reversed(shadowed):  # one object may stand there under two names
            if before is None:
                vars(target).pop(method, None)  # who put his own in its place may have taken that away
            else:
                object.__setattr__(target, method, before)


def own_method(target: Any, method: str = "forward") -> Any:
    """Return what an object itself has in place of its class's method, but for what `intercept` put there.

    None too where that is the class's own, which hooks of diffusers and accelerate leave behind.
    """
    own = vars(target).get(method)
    while isinstance(own, Interception):
        own = own.shadowed
    return None if getattr(own, "__func__", None) is getattr(type(target), method, None) else own


# Calls that compiled code makes are recognized by the hook that `torch.compile` sets in their thread.
# `torch._dynamo` takes seconds to import, and a process has it only once it has compiled something. Its C
# part comes with torch. It is private: a torch without these names renders too, and compiles calls like any
# others.
try:
    from torch._C._dynamo.eval_frame import (
        _FrameAction,
        _FrameExecStrategy,
        get_eval_frame_callback,
        set_code_exec_strategy,
    )
except ImportError:
    HAS_HOOK = False
else:
    HAS_HOOK = True

_Function = TypeVar("_Function", bound=Callable[..., Any])


def left_to_python(function: _Function) -> _Function:
    """Have the compiler call a function as it is instead of tracing it."""
    function._torchdynamo_disable = True  # type: ignore[attr-defined]
    if HAS_HOOK:
        strategy = _FrameExecStrategy(_FrameAction.SKIP, _FrameAction.DEFAULT)
        set_code_exec_strategy(function.__code__, strategy)
    return function


@left_to_python
def is_compiled_call() -> bool:
    """Tell whether the caller of this function was called by compiled code."""
    return HAS_HOOK and callable(get_eval_frame_callback())
