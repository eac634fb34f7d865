"""Wrap methods of modules in a function while a block runs.

An attribute on the instance shadows the class's method: `nn.Module.__call__` looks `forward` up on the
instance, and accelerate's hooks rely on this too. Nothing stays on the model when the block ends.
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
    """Called in place of a method. shadowed: what the instance had under this name before."""

    shadowed: Any = None

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """Give a copy of the object the original method, bound to the copy."""
        return copy.deepcopy(self._original, memo)

    def __reduce__(self) -> Any:
        """Give a pickle of the object the original method, too."""
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
            # For `inspect.signature`, which modular denoisers and Stable Video Diffusion call on it.
            instead.__wrapped__ = original  # type: ignore[attr-defined]
            instead.shadowed = before
            # object.__setattr__: nn.Module's own setter would search its parameters and buffers each time
            object.__setattr__(target, method, instead)
        yield
    finally:
        for target, before in reversed(shadowed):  # an object may be there under two names
            if before is None:
                vars(target).pop(method, None)  # other code may have replaced and removed it
            else:
                object.__setattr__(target, method, before)


def own_method(target: Any, method: str = "forward") -> Any:
    """Return what an instance has in place of its class's method, apart from our interceptions.

    None also if it is the class's own method, which hooks of diffusers and accelerate leave on the instance.
    """
    own = vars(target).get(method)
    while isinstance(own, Interception):
        own = own.shadowed
    return None if getattr(own, "__func__", None) is getattr(type(target), method, None) else own


# Calls from compiled code are recognized by the hook that `torch.compile` sets in their thread.
# `torch._dynamo` takes seconds to import, and only processes that compile something import it, but its C part
# comes with torch. These names are private: if a torch lacks them, `is_compiled_call` returns False.
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
    """Make the compiler call a function instead of tracing it."""
    function._torchdynamo_disable = True  # type: ignore[attr-defined]
    if HAS_HOOK:
        strategy = _FrameExecStrategy(_FrameAction.SKIP, _FrameAction.DEFAULT)
        set_code_exec_strategy(function.__code__, strategy)
    return function


@left_to_python
def is_compiled_call() -> bool:
    """Return whether the caller of this function was called by compiled code."""
    return HAS_HOOK and callable(get_eval_frame_callback())
