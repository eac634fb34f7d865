"""What a user's function says of itself as a recipe."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])
_BATCHED = "__framefleet_batched__"


def recipe(*, batched: bool) -> Callable[[Function], Function]:
    """Say that rows of a recipe can be rendered together: `@framefleet.recipe(batched=True)`.

    Without it they are rendered one at a time. batched: the recipe changes nothing that outlives its call or
    that other rows share: networks, modules, torch's settings. Audits watch whether that is so.
    """

    def decorate(function: Function) -> Function:
        setattr(function, _BATCHED, batched)
        return function

    return decorate


def is_batched(function: Callable[..., Any]) -> bool:
    return bool(getattr(function, _BATCHED, False))
