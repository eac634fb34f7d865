"""Put around calls: adds the seconds of each to those of a row."""

from __future__ import annotations

import time
from collections.abc import Callable, MutableMapping
from typing import Any

from framefleet.pipeline.hooks.intercept import Around

_Seconds = Callable[[], MutableMapping[str, float] | None]


def timed(key: str, seconds: _Seconds) -> Around:
    """Return a stopwatch. seconds: those of the row at work right now; None: nobody's call."""

    def measured(name: str, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        started = time.perf_counter()
        try:
            return original(*args, **kwargs)
        finally:
            row = seconds()
            if row is not None:
                row[key] = row.get(key, 0.0) + time.perf_counter() - started

    return measured
