"""Tells calls that compiled code makes from others, by the hook that `torch.compile` sets in their thread.

`torch._dynamo` takes seconds to import, and a process has it only once it has compiled something. Its C part
comes with torch. It is private: a torch without these names renders too, and compiles calls like any others.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

try:
    from torch._C._dynamo.eval_frame import (
        _FrameAction,
        _FrameExecStrategy,
        get_eval_frame_callback,
        set_code_exec_strategy,
        set_eval_frame,
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


def compiling_only_the_original(around: _Function) -> _Function:
    """Run a method that `intercept` puts around others without the compiler, and the original with it.

    Otherwise the compiler would trace all that runs until the method returns, other rows' code too.
    """

    @functools.wraps(around)
    def call(self: Any, name: str, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        hook = get_eval_frame_callback() if HAS_HOOK else None
        if not callable(hook):
            return around(self, name, original, *args, **kwargs)

        def compiled(*args: Any, **kwargs: Any) -> Any:
            set_eval_frame(hook)
            try:
                return original(*args, **kwargs)
            finally:
                set_eval_frame(None)

        set_eval_frame(None)
        try:
            return around(self, name, compiled, *args, **kwargs)
        finally:
            set_eval_frame(hook)

    return left_to_python(call)  # type: ignore[return-value]
