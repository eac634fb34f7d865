"""Put a function around methods of modules for a while, and take it away again.

An attribute on the instance shadows the class's method; `nn.Module.__call__` looks `forward` up on the
instance, as accelerate's hooks rely on too. Nothing stays on the model when the block ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

Around = Callable[..., Any]  # called as around(name, original, *args, **kwargs)


@contextmanager
def intercept(objects: Mapping[str, Any], around: Around, *, method: str = "forward") -> Iterator[None]:
    """Call `around(name, original, ...)` in place of `method` of each object while the block runs."""
    shadowed: list[tuple[Any, Any]] = []
    try:
        for name, target in objects.items():
            original = getattr(target, method)
            shadowed.append((target, vars(target).get(method)))
            # object.__setattr__: nn.Module's own setter would search its parameters and buffers each time
            object.__setattr__(target, method, _in_place_of(original, partial(around, name, original)))
        yield
    finally:
        for target, before in reversed(shadowed):  # one object may stand there under two names
            if before is None:
                object.__delattr__(target, method)
            else:
                object.__setattr__(target, method, before)


def _in_place_of(original: Callable[..., Any], other: partial[Any]) -> partial[Any]:
    """Let `inspect.signature` read the original's, as modular denoisers and Stable Video Diffusion do."""
    other.__wrapped__ = original  # type: ignore[attr-defined]
    return other
