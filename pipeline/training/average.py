"""In: weights, step by step. Out: their exponential moving average (EMA), smoother than the last of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor


class Average:
    """An average beside each weight. decay: how much of it a step keeps, once there were many."""

    def __init__(self, weights: Mapping[str, Tensor], decay: float) -> None:
        self._weights, self._decay = weights, decay
        self.values = {name: weight.detach().clone() for name, weight in weights.items()}

    @torch.no_grad()
    def take(self, step: int) -> None:
        """Take in the weights of step `step` (from 0).

        Early steps count more, as in diffusers' EMAModel: a short run would else keep what it began with.
        """
        decay = min(self._decay, (1 + step) / (10 + step))
        for name, value in self.values.items():
            value.lerp_(self._weights[name].detach(), 1 - decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Put the average where the weights are, until the block ends."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        for name, value in self.values.items():
            weight = self._weights[name]
            kept = weight.detach().clone()  # of one weight at a time: a third copy of all might not fit
            weight.copy_(value)
            value.copy_(kept)
