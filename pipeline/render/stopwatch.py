"""Put around calls: adds the seconds of each to those of a row."""

from __future__ import annotations

import time
from collections.abc import Callable, MutableMapping
from typing import Any

import torch

from framefleet.pipeline.hooks.intercept import Around

_Seconds = Callable[[], MutableMapping[str, float] | None]


def timed(key: str, seconds: _Seconds, device: str) -> Around:
    """Return a stopwatch. seconds: those of the row at work right now; None: nobody's call.

    A GPU is waited for at both ends: calls return once they are launched. What it still denoises as a
    decoder is called counts as denoising.
    """

    def measured(name: str, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        called = time.perf_counter()
        started = _done(device)
        try:
            result = original(*args, **kwargs)
            ended = _done(device)
        except BaseException:
            ended = time.perf_counter()
            raise
        finally:
            row = seconds()
            if row is not None:
                row[key] = row.get(key, 0.0) + ended - started
                if key == "decode_s":
                    row["denoise_s"] = row.get("denoise_s", 0.0) + started - called
        return result

    return measured


def _done(device: str) -> float:
    """Return when all that was launched is done."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
    return time.perf_counter()
