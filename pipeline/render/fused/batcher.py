"""Run many rows' recipes at once, one fused forward at a time.

Each recipe runs in a greenlet of its own. When it calls a denoiser, a decoder or what else rows may call
together, the call is parked and the next recipe goes on. When all are parked, equal calls are run together
and each recipe gets its slice back. Does not know recipes, pipelines or devices: it sees functions and calls.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

import greenlet
import torch

from framefleet.pipeline.hooks.global_draws import GlobalDraws
from framefleet.pipeline.hooks.intercept import intercept
from framefleet.pipeline.render.fused.calls import Call, Result, is_private, parse_call
from framefleet.pipeline.render.fused.forwards import Forwards
from framefleet.pipeline.render.half_done.journal import Journal


class RowTask:
    """One function on its way. `value` or `error` is set once it is finished."""

    def __init__(
        self,
        function: Callable[[], Any],
        draws: GlobalDraws | None = None,
        journal: Journal | None = None,
    ) -> None:
        self.value: Any = None
        self.error: Exception | None = None
        self.seconds: dict[str, float] = {}  # its share of other calls than forwards, see `Method`
        self.journal = journal or Journal()
        self.forward_s = 0.0  # its share of forwards
        self.num_forwards = len(self.journal.made)
        self.num_rows = sum(made.rows for made in self.journal.made)  # of all its forwards together
        self.first_forward_at = 0.0  # time.perf_counter(), like the next
        self.last_forward_at = 0.0
        self.sizes: Hashable | None = None  # of the tensors in its first forward, see `Forwards.sizes`
        self.draws = draws or GlobalDraws()
        self._function = function
        self.greenlet = greenlet.greenlet(self._run)
        self.call: Call | None = None
        self.result: Result | None = None

    @property
    def is_finished(self) -> bool:
        return bool(self.greenlet.dead)

    @property
    def batch_size(self) -> float:
        """Mean rows per forward."""
        return self.num_rows / self.num_forwards if self.num_forwards else 1.0

    def run(self) -> None:
        """Do all of it at once: for a function whose calls nobody parks."""
        self.first_forward_at = time.perf_counter()
        self.greenlet.switch()
        self.last_forward_at = time.perf_counter()

    def _run(self) -> None:
        try:
            self.value = self._function()
        except Exception as error:  # whatever a recipe raises is this row's own failure
            self.error = error


class Batcher:
    """Tasks that share forwards. All calls must come from one thread."""

    def __init__(
        self, forwards: Forwards, *, busy: Callable[[], AbstractContextManager[Any]] = nullcontext
    ) -> None:
        """busy: held while forwards run."""
        self._forwards = forwards
        self._busy = busy
        self._tasks: dict[greenlet.greenlet, RowTask] = {}
        self._hub: greenlet.greenlet | None = None
        self._process = GlobalDraws()  # what code around the tasks draws
        self.reach = forwards.reach([])  # the most rows that a forward of the last round could use

    @property
    def num_tasks(self) -> int:
        return len(self._tasks)

    @property
    def current(self) -> RowTask | None:
        """The task that is running right now."""
        return self._tasks.get(greenlet.getcurrent())

    def start(
        self,
        function: Callable[[], Any],
        draws: GlobalDraws | None = None,
        journal: Journal | None = None,
    ) -> RowTask:
        """draws: what the function draws from the global generators; it seeds them. journal: of a function
        that goes on from what another process made of it."""
        task = RowTask(function, draws, journal)
        self._tasks[task.greenlet] = task
        return task

    def step(self, around: Callable[[], AbstractContextManager[Any]] = nullcontext) -> list[RowTask]:
        """Take every task to its next forward; return those that finished, or else run the forwards.

        Finished tasks come back first, so that others can take their place in the forwards.
        around: held while tasks run, not while forwards do; what it puts around methods sees calls first.
        """
        self.park(around)
        finished = self.take_finished()
        if not finished:
            with as_in_pipelines(), self._process.kept():
                self._run_forwards()
        return finished

    def park(self, around: Callable[[], AbstractContextManager[Any]] = nullcontext) -> None:
        """Take every task to its next forward or its end, and run none. around: see `step`."""
        with as_in_pipelines(), self._process.kept(), self._parking(), around():
            self._resume_all()

    def take_finished(self) -> list[RowTask]:
        """Return tasks that have come to their end, and forget them."""
        finished = [task for task in self._tasks.values() if task.is_finished]
        for task in finished:
            del self._tasks[task.greenlet]
        return finished

    def cancel(self) -> None:
        """End all tasks where they are."""
        with as_in_pipelines(), self._process.kept():
            for task in self._tasks.values():
                task.greenlet.throw()
        self._tasks.clear()

    @contextmanager
    def _parking(self) -> Iterator[None]:
        with ExitStack() as stack:
            for name, method in self._forwards.methods.items():
                stack.enter_context(intercept({name: method.network}, self._park, method=method.name))
            yield

    def _resume_all(self) -> None:
        self._hub = greenlet.getcurrent()
        for task in self._tasks.values():
            if task.call is None:
                with task.draws.turn():
                    task.greenlet.switch()

    def _park(self, name: str, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        task = self.current
        is_own = is_private() or not self._forwards.methods[name].is_as_it_was
        if task is None or self._hub is None or is_own:
            return forward(*args, **kwargs)
        call = parse_call(name, args, kwargs, task.draws)
        if self._forwards.is_denoising(call) and (known := task.journal.answer(call)):
            return known[0]
        task.call = call
        self._hub.switch()
        result, task.result = task.result, None
        assert result is not None
        if result.error is not None:
            raise result.error
        return result.value

    def _run_forwards(self) -> None:
        parked = [(task, task.call) for task in self._tasks.values() if task.call is not None]
        if not parked:
            return
        groups = self._forwards.groups([call for _, call in parked])
        forwards = [call for places in groups if self._forwards.is_denoising(call := parked[places[0]][1])]
        if forwards:  # what other calls share says nothing of how many rows to have under way
            before, self.reach = self.reach, self._forwards.reach(forwards)
            if self.reach > before:  # more rows may join these first
                return
        for places in groups:
            started = time.perf_counter()
            with self._busy():
                results = self._forwards.run([parked[place][1] for place in places])
            share_s = (time.perf_counter() - started) / len(places)
            for place, result in zip(places, results, strict=True):
                task, call = parked[place]
                task.call, task.result = None, result
                if self._forwards.is_denoising(call):
                    task.forward_s += share_s
                    self._note_forward(task, call, result, started)
                else:
                    key = self._forwards.methods[call.module].seconds
                    task.seconds[key] = task.seconds.get(key, 0.0) + share_s

    def _note_forward(self, task: RowTask, call: Call, result: Result, started: float) -> None:
        if not task.first_forward_at:
            task.sizes, task.first_forward_at = self._forwards.sizes(call), started
        task.last_forward_at = time.perf_counter()
        task.num_forwards += 1
        task.num_rows += result.rows
        task.journal.note(call, result)


@contextmanager
def as_in_pipelines() -> Iterator[None]:
    """Gradients off, as in a pipeline's call, and set back at the end.

    torch keeps them per thread, not per greenlet: one row's exit must not switch another's on.
    """
    with torch.inference_mode(False), torch.no_grad():
        yield
