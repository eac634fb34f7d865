"""What goes wrong at a named operation of the stand-in: a kernel breaks the context."""

from __future__ import annotations

import torch

from tests.standin.gpu import ILLEGAL, Hook
from tests.standin.tensor import gpus


def breaking(operation: str, *, at: int = 1) -> Hook:
    """Return what breaks the context at one call of an operation: it and all later ones fail.

    at: which call, counted from 1.
    """
    num_met = 0

    def hook(name: str) -> None:
        nonlocal num_met
        num_met += name == operation
        if num_met == at and name == operation:
            error = torch.AcceleratorError(ILLEGAL)
            gpus.sticky = str(error)
            raise error

    return hook
