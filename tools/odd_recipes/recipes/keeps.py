"""Recipes whose module keeps something between rows."""

from __future__ import annotations

import random
from typing import Any

import torch

from framefleet import Request
from framefleet.pipeline.recipes.catalog import generate

_generator = torch.Generator().manual_seed(3)
_random = random.Random(3)
_count = 0


def _latents(request: Request, factor: float) -> dict[str, Any]:
    drawn = torch.randn((1, 4, 2, 2), generator=request.generator())
    return {**request.arguments, "latents": drawn * factor}


def counted(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    """Add more noise to each odd row than to the one before."""
    global _count
    _count += bool(odd)
    return pipe(**_latents(request, 1 + odd * _count), output_type="np")


def default_argument(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    """Go by all rows that a mutable default argument has seen."""
    return pipe(**_latents(request, _mean(odd)), output_type="np")


def _mean(odd: float, seen: list[float] = []) -> float:  # noqa: B006  # the mistake that is tested
    if odd:
        seen.append(odd)
    return 1 + sum(seen) / max(1, len(seen)) if odd else 1


def attribute_of_a_function(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    """Keep the row before as an attribute of the recipe itself."""
    last = getattr(attribute_of_a_function, "last", 0.0)
    if odd:
        attribute_of_a_function.last = odd  # type: ignore[attr-defined]
    return pipe(**_latents(request, 1 + odd + last * bool(odd)), output_type="np")


def generators_of_the_module(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    """Draw from generators that the module seeded once."""
    if not odd:
        return generate(pipe, request)
    noise = torch.randn((1, 4, 2, 2), generator=_generator) * (1 + _random.random())
    return pipe(**request.arguments, latents=noise, output_type="np")
