"""What the calls of a row took, by purpose; on a GPU, known once it has reached their ends.

Nobody waits for it meanwhile: whoever reads a clip's seconds has its frames, and so it has.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import cache, cached_property, partial
from typing import Any, Self

import torch

from framefleet.pipeline.hooks.intercept import Around


class RowSeconds(defaultdict[str, float]):
    def __init__(self) -> None:
        super().__init__(float)
        self._launched: list[Callable[[], None]] = []

    def add_later(self, settle: Callable[[], None]) -> None:
        """Call `settle`, which waits for the GPU and adds its seconds, before all are read."""
        self._launched.append(settle)

    def settled(self) -> Self:
        """Wait for calls that a GPU has not reached yet; return all seconds."""
        while self._launched:
            with suppress(RuntimeError):  # a broken GPU: whoever waits for the frames gets its error
                self._launched.pop()()
        return self


class ClipSeconds(Mapping[str, float]):
    """Seconds of a clip, which are waited for when they are read."""

    def __init__(self, own: RowSeconds, others: Mapping[str, float]) -> None:
        """others: are added to the row's own."""
        self._own, self._others = own, others

    def plus(self, **others: float) -> ClipSeconds:
        return ClipSeconds(self._own, {**self._others, **others})

    @cached_property
    def _all(self) -> dict[str, float]:
        own = self._own.settled()
        names = {**own, **self._others}
        return {name: own.get(name, 0.0) + self._others.get(name, 0.0) for name in names}

    def __getitem__(self, name: str) -> float:
        return self._all[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)

    def __repr__(self) -> str:
        return repr(self._all)


def timed(key: str, seconds: Callable[[], RowSeconds | None], device: str) -> Around:
    """Return what adds the seconds of each call to a row's. seconds: of the row at work; None: no row's call.

    On a GPU calls return once they are launched. What it still denoises as a decoder is called counts as
    denoising.
    """

    def measured(name: str, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        called = time.perf_counter()
        try:
            return original(*args, **kwargs)
        finally:
            if (row := seconds()) is not None:
                row[key] += time.perf_counter() - called

    def launched(name: str, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        called, start = time.perf_counter(), _moment(device)
        try:
            return original(*args, **kwargs)
        finally:
            if start is not None and (row := seconds()) is not None and (end := _moment(device)) is not None:
                row.add_later(partial(_settle, row, key, called, start, end, device))

    return launched if device.startswith("cuda") else measured


def _moment(device: str) -> Any:
    """Return a moment in the work of a GPU, by an event in its stream."""
    with suppress(RuntimeError):  # a broken GPU has no moments; the call says so to its row
        _ = _origin(device)
        return gpu_event(torch.device(device))
    return None


@cache
def _origin(device: str) -> tuple[Any, float]:
    """Return an event, and when it was by this process's clock; waited for once."""
    event = gpu_event(torch.device(device))
    event.synchronize()
    return event, time.perf_counter()


def _settle(row: RowSeconds, key: str, called: float, start: Any, end: Any, device: str) -> None:
    end.synchronize()
    row[key] += start.elapsed_time(end) / 1000
    if key == "decode_s":
        origin, origin_s = _origin(device)
        row["denoise_s"] += max(0.0, origin_s + origin.elapsed_time(start) / 1000 - called)


def gpu_event(device: torch.device) -> Any:
    event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    event.record(torch.cuda.current_stream(device))
    return event
