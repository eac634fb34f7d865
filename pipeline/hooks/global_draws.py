"""The global generators of torch, NumPy and Python, for code that takes turns: each row keeps its own state.

Not covered: other threads of the process that draw meanwhile.
"""

from __future__ import annotations

import ctypes
import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

import numpy as np
import torch

# NumPy's `mt19937_state`: 624 words of 32 bits, and a position.
_WORDS = 625


class GlobalDraws:
    """The numbers that one row, or the process around the rows, draws next from the global generators.

    Call `resume` before its code runs and `leave` after it: 25 us together, 150 us if it used NumPy's
    generator. Before `seed` or `leave` was called, `resume` changes nothing.
    """

    def __init__(self) -> None:
        self._torch: list[torch.Tensor] | None = None
        self._python: Any = None
        self._numpy = _NumPyDraws()

    @classmethod
    def now(cls) -> Self:
        """Return the numbers that the running code draws next."""
        draws = cls()
        draws.leave()
        return draws

    def seed(self, seed: int) -> None:
        """Start again, and draw from now on the numbers that a script draws after these lines:

        torch.manual_seed(seed); numpy.random.seed(seed % 2**32); random.seed(seed)
        """
        for generator in _torch_generators():
            generator.manual_seed(seed)
        random.seed(seed)
        self._numpy.seed(seed)

    def resume(self) -> None:
        """Let the running code draw these numbers."""
        if self._torch is None:
            return
        # Not strict: a GPU may have come into use since.
        for generator, state in zip(_torch_generators(), self._torch, strict=False):
            generator.set_state(state)
        random.setstate(self._python)
        self._numpy.resume()

    def leave(self) -> None:
        """Save the state of the generators."""
        self._torch = [generator.get_state() for generator in _torch_generators()]
        self._python = random.getstate()
        self._numpy.leave()

    def mark(self) -> bytes:
        """Return a digest of the last `leave`: equal digests mean that the same numbers are drawn next."""
        # Distinct states: usually all GPUs draw the same, and another machine may have more of them.
        states = sorted({state.numpy().tobytes() for state in self._torch or ()})
        text = repr((self._python, self._numpy.mark()))
        return hashlib.sha256(b"".join(states) + text.encode()).digest()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Let the block draw these numbers."""
        self.resume()
        try:
            yield
        finally:
            self.leave()

    @contextmanager
    def preserved(self) -> Iterator[None]:
        """Let the block draw any numbers, and then continue as before."""
        self.leave()
        try:
            yield
        finally:
            self.resume()


@contextmanager
def drawing_from(seed: int) -> Iterator[None]:
    """Let the block draw as after `GlobalDraws.seed`; then the generators are as before."""
    with GlobalDraws().preserved():
        GlobalDraws().seed(seed)
        yield


class _NumPyDraws:
    """NumPy's part. Copying its state takes 80 us, so an unchanged state is not copied again.

    Changes are seen in the generator's memory. While it stores the second of a pair of normal numbers, which
    is not in that memory, the state is always copied.
    """

    def __init__(self) -> None:
        self._seed: int | None = None
        self._state: dict[str, Any] | None = None
        self._memory = b""

    def seed(self, seed: int) -> None:
        self._seed, self._state = seed % 2**32, None
        np.random.seed(self._seed)
        self._memory = _memory()

    def resume(self) -> None:
        if self._state is None:
            np.random.seed(self._seed)
        else:
            np.random.set_state(self._state)

    def leave(self) -> None:
        memory = _memory()
        half = self._state["has_gauss"] if self._state else 0
        if not memory or memory != self._memory or half:
            self._state = dict(np.random.get_state(legacy=False))
            self._memory = memory

    def mark(self) -> Any:
        half = self._state["gauss"] if self._state and self._state["has_gauss"] else None
        return self._memory or repr(self._state), half


def _memory() -> bytes:
    """Return the state of NumPy's global generator as bytes; b"" if it is not an MT19937."""
    generator = np.random.mtrand.get_bit_generator()
    if not isinstance(generator, np.random.MT19937):
        return b""
    return ctypes.string_at(generator.ctypes.state_address, 4 * _WORDS)


def _torch_generators() -> tuple[torch.Generator, ...]:
    on_gpus = torch.cuda.default_generators if torch.cuda.is_initialized() else ()  # type: ignore[no-untyped-call]
    return (torch.default_generator, *on_gpus)
