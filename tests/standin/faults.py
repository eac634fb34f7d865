"""What goes wrong at a named operation of the stand-in: memory runs out, or a kernel breaks the context."""

from __future__ import annotations

import torch

from tests.standin.gpu import ILLEGAL, Hook, out_of_memory
from tests.standin.tensor import gpus


def filling(operation: str, *, at: int = 1) -> Hook:
    """Return what has memory run out at one call of an operation. at: which, counted from 1."""
    return _at(operation, at, out_of_memory())


def breaking(operation: str, *, at: int = 1) -> Hook:
    """Return what breaks the context at one call of an operation: it and all later ones fail."""
    return _at(operation, at, torch.AcceleratorError(ILLEGAL))


def _at(operation: str, at: int, error: Exception) -> Hook:
    num_met = 0

    def hook(name: str) -> None:
        nonlocal num_met
        num_met += name == operation
        if num_met == at and name == operation:
            if isinstance(error, torch.AcceleratorError):
                gpus.sticky = str(error)
            raise error

    return hook
