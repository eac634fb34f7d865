"""Put around calls: one that runs out of memory while other rows run is made again once these are done."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Generator

from framefleet.pipeline.hooks.global_draws import GlobalDraws
from framefleet.pipeline.hooks.intercept import Around
from framefleet.pipeline.memory import free_memory, is_out_of_memory, whole_workspaces


def second_try(wait: Callable[[], None]) -> Around:
    """wait: has the row that is running wait until it has the model for itself."""

    def called(name: str, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        draws = GlobalDraws()
        draws.leave()
        try:
            with whole_workspaces():
                return original(*args, **kwargs)
        except Exception as error:
            # What a generator of the row's own gave is gone.
            has_drawn = any(isinstance(value, Generator) for value in (*args, *kwargs.values()))
            if has_drawn or not is_out_of_memory(error):
                raise
        free_memory()  # after the handler: until then the exception holds the call's tensors
        wait()
        draws.resume()
        return original(*args, **kwargs)

    return called
