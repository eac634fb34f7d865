"""What rows may call together: a denoiser's forward, an autoencoder's decode, a text encoder's forward."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn


@dataclass(frozen=True, slots=True)
class Method:
    """One method of a network. seconds: under which name a row's share of its time is counted."""

    network: nn.Module
    name: str = "forward"
    seconds: str = "denoise_s"

    @property
    def call(self) -> Callable[..., Any]:
        function: Callable[..., Any] = getattr(self.network, self.name)
        return function


Methods = Mapping[str, Method]  # by what logs call them
