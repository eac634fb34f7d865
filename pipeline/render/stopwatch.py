"""In: what stands around calls. Out: the same, which adds the seconds of each call to those of a row."""

from __future__ import annotations

import time
from collections.abc import Callable, MutableMapping
from typing import Any

from framefleet.pipeline.hooks.intercept import Around

_Seconds = Callable[[], MutableMapping[str, float] | None]


def timed(key: str, around: Around, seconds: _Seconds) -> Around:
    """Return `around` with a stopwatch. seconds: those of the row at work right now; None: nobody's call."""

    def measured(name: str, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        started = time.perf_counter()
        try:
            return around(name, original, *args, **kwargs)
        finally:
            row = seconds()
            if row is not None:
                row[key] = row.get(key, 0.0) + time.perf_counter() - started

    return measured


def as_it_is(name: str, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call what is called; for `timed`."""
    return original(*args, **kwargs)
