"""Where the time of a model's worker goes: every second has one cause, and what is work is charged to rows.

The thread that renders says what it is about. On a GPU work goes on after it was launched: there the pieces
of work and the gaps between them are measured by events in its stream, and a gap is shared out by what the
thread did meanwhile.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from framefleet.pipeline.hooks.intercept import intercept
from framefleet.pipeline.metrics import BUSY
from framefleet.pipeline.outputs.clips import Clip
from framefleet.pipeline.render.fused.batcher import RowTask
from framefleet.pipeline.render.row_queue import RenderRow
from framefleet.pipeline.render.row_seconds import ClipSeconds, gpu_event

# The thread runs what is between two forwards: pipelines, noise schedulers, the joining of forwards.
_PIPELINE = "pipeline"
# What others do: bring rows and their inputs, and take clips. It may take any time.
_OTHERS = {"rows", "inputs", "upload", "media", "store"}
# A cause interrupts those of a lower rank alone, so that what an audit or a probe calls counts as theirs.
_RANKS = dict(encode=1, denoise=1, decode=1, plain=2, audit=2, probe=3, store=4, compile=4)


class Clock:
    def __init__(self, device: str = "cpu", *, now: Callable[[], float] = time.perf_counter) -> None:
        self._marks: _Moments | _Events = _Events(device) if device.startswith("cuda") else _Moments(now)
        self._now = now
        self._lock = threading.Lock()  # of all below
        self._started = self._since = self._turned = now()
        self._cause = _PIPELINE
        self._marked = self._marks.mark()  # where the present part began
        self._part: dict[str, float] = defaultdict(float)  # since then, by cause, as this thread sees it
        self._parts: list[tuple[Any, Any, dict[str, float]]] = []  # that the model may not have come to
        self._total: dict[str, float] = defaultdict(float)
        self._told: Mapping[str, float] = {}

    @contextmanager
    def spending(self, cause: str) -> Iterator[None]:
        """Count the block's time as this, unless it is part of something of a higher rank."""
        before, rank = self._cause, _RANKS.get(self._cause, 0)
        counts = not rank or _RANKS.get(cause, 0) > rank
        self._turn(cause if counts else before)
        try:
            yield
        finally:
            self._turn(before)

    def around(self, cause: str, _: str, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        with self.spending(cause):
            return original(*args, **kwargs)

    @contextmanager
    def seeing(self, networks: Mapping[str, Any]) -> Iterator[None]:
        """Count the time of these functions as busy while the block runs."""
        with ExitStack() as stack:
            for method in ("forward", "encode", "decode"):
                around = partial(self.around, "decode" if method == "decode" else "encode")
                able = {name: network for name, network in networks.items() if hasattr(network, method)}
                stack.enter_context(intercept(able, around, method=method))
            yield

    def watch_compiler(self) -> None:
        """Count compilation separately from the model's work, from now on."""
        from torch._dynamo.callback import callback_handler  # takes a second to import

        stack = ExitStack()

        def begin(_: object) -> None:
            if self._cause in BUSY:  # otherwise it is another model that is compiled
                stack.enter_context(self.spending("compile"))

        callback_handler.register_start_callback(begin)
        callback_handler.register_end_callback(lambda _: stack.close())

    def seconds(self) -> dict[str, float]:
        """Return all time until now, by cause; of a GPU as far as it has come. From any thread."""
        with self._lock:
            self._count()
            if self._marks.are_anyones or self._cause not in BUSY:
                self._end_part()
            while self._parts and (seconds := self._marks.seconds(*self._parts[0][:2])) is not None:
                part = self._parts.pop(0)[2]
                seen = sum(part.values())
                for cause, share in part.items():
                    self._total[cause] += seconds * (share / seen if seen else 1 / len(part))
            return {cause: seconds for cause, seconds in self._total.items() if seconds}

    def idle_seconds(self) -> dict[str, float]:
        """Return the time until now in which the model computed nothing, by what it waited for."""
        return {cause: seconds for cause, seconds in self.seconds().items() if cause not in BUSY}

    @property
    def busy_s(self) -> float:
        """All time until now that was not idle; of a GPU as far as it has come."""
        idle_s = sum(self.idle_seconds().values())
        with self._lock:
            return self._since - self._started - idle_s

    def lap(self) -> Mapping[str, float]:
        total, before = self.idle_seconds(), self._told
        self._told = total
        return {cause: more for cause in total if (more := total[cause] - before.get(cause, 0.0))}

    def still_s(self) -> float:
        """Return how long the thread has been at one thing; 0 while it waits for others. From any thread."""
        with self._lock:
            return 0.0 if self._cause in _OTHERS else self._now() - self._turned

    @property
    def elapsed_s(self) -> float:
        return self._now() - self._started

    def _turn(self, cause: str) -> None:
        with self._lock:
            self._count()
            before, self._cause, self._turned = self._cause, cause, self._since
            if before != cause and (before in BUSY or cause in BUSY):
                self._end_part()

    def _count(self) -> None:
        now = self._now()
        self._part[self._cause] += now - self._since
        self._since = now

    def _end_part(self) -> None:
        before, self._marked = self._marked, self._marks.mark()
        self._parts.append((before, self._marked, self._part))
        self._part = defaultdict(float)


class _Moments:
    """Moments in the work of a model whose calls return when they are done."""

    are_anyones = True  # any thread may make them, whatever the model does

    def __init__(self, now: Callable[[], float]) -> None:
        self.mark = now

    def seconds(self, first: float, then: float) -> float | None:
        """Return the time between two moments; None while the second has not come."""
        return then - first


class _Events:
    """Moments of a GPU, which come when all that was launched before them is done."""

    are_anyones = False  # another thread's would end a part of the model's work in the middle of a launch

    def __init__(self, device: str) -> None:
        self._device = torch.device(device)

    def mark(self) -> Any:
        with suppress(RuntimeError):  # a broken GPU has no moments; what is called next says so to its row
            return gpu_event(self._device)
        return None

    def seconds(self, first: Any, then: Any) -> float | None:
        with suppress(RuntimeError):
            if first is not None and then is not None:
                return first.elapsed_time(then) / 1000 if then.query() else None
        return 0.0


class Charges:
    """Charges rows with a model's busy time, as it passes."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._charged_s = 0.0  # all rows, since the clock runs
        self._rows: Mapping[RowTask, RenderRow] = {}

    def work_on(self, rows: Mapping[RowTask, RenderRow]) -> None:
        self._rows = dict(rows)

    def charge(self) -> None:
        """Share out the model's busy time since the last call.

        In proportion to their calls, as far as seen from here; what no call explains, e.g. an audit, equally.
        On a GPU some time is known later than it passed, and shared then.
        """
        parts = {}
        for task, row in self._rows.items():  # what its calls took since the last time
            before = row.worked_s
            row.worked_s = task.forward_s + sum(task.seconds.values()) + sum(row.seconds.values())
            parts[row] = max(row.worked_s - before, 0.0)
        busy_s = self._clock.busy_s - self._charged_s
        if not parts or busy_s <= 0:
            return
        self._charged_s += busy_s
        total = sum(parts.values())
        for row, part in parts.items():
            row.compute_s += busy_s * (part / total if total else 1 / len(parts))

    def charged(self, clip: Clip) -> Clip:
        """Return the clip of one of these rows with all the time that its row took until now."""
        assert isinstance(clip.seconds, ClipSeconds)
        return replace(clip, seconds=clip.seconds.plus(compute_s=self._took_s(clip)))

    def again(self, clip: Clip) -> RenderRow:
        """Return a clip's row as one that is rendered again; the time that it took stays with it."""
        return RenderRow(clip.row_id, clip.request, compute_s=self._took_s(clip))

    def _took_s(self, clip: Clip) -> float:
        mine = (clip.row_id, clip.started_at)  # a row_id may be there twice
        row = next(row for row in self._rows.values() if (row.row_id, row.started_at) == mine)
        return row.compute_s + row.earlier.get("compute_s", 0.0)
