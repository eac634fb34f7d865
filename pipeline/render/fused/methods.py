"""What rows may call together: a denoiser's forward, an autoencoder's decode, a text encoder's forward."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True, slots=True)
class Method:
    """One method of a network.

    seconds: under which name a row's share of its time is counted. dtype: of its weights, where rows may
    change that around a call, as pipelines do that decode in fp32 and hold fp16.
    """

    network: nn.Module
    name: str = "forward"
    seconds: str = "denoise_s"
    dtype: torch.dtype | None = None

    @property
    def is_as_it_was(self) -> bool:
        """Whether its weights have their dtype: a row that changed it wants the call made at once."""
        return self.dtype is None or dtype_of(self.network) == self.dtype

    @property
    def call(self) -> Callable[..., Any]:
        function: Callable[..., Any] = getattr(self.network, self.name)
        return function


def dtype_of(network: nn.Module) -> torch.dtype | None:
    """Return the dtype of its first weight."""
    return next((weight.dtype for weight in network.parameters()), None)


Methods = Mapping[str, Method]  # by what logs call them
