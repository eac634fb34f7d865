"""Run many rows' recipes at once, one fused forward at a time.

Each recipe runs in a greenlet of its own. When it calls a denoiser, a decoder or what else rows may call
together, the call is parked and the next recipe goes on. When all are parked, equal calls are run together
and each recipe gets its slice back. Does not know recipes, pipelines or devices: it sees functions and calls.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

import greenlet
import torch

from framefleet.pipeline.errors import RecipeError
from framefleet.pipeline.hooks.global_draws import GlobalDraws
from framefleet.pipeline.hooks.intercept import intercept, is_compiled_call, left_to_python
from framefleet.pipeline.memory import is_out_of_memory
from framefleet.pipeline.render.checkpoints.checkpoint import Journal
from framefleet.pipeline.render.fused.calls import Call, Result, is_private, parse_call
from framefleet.pipeline.render.fused.forwards import Forwards
from framefleet.pipeline.render.fused.joint_calls import JointCall, joined_rows, joint_at_work
from framefleet.pipeline.render.fused.row_thread import RowThread, row_thread, stay


class RowTask:
    """One function under way. `value` or `error` is set once it is finished."""

    def __init__(
        self,
        function: Callable[[], Any],
        draws: GlobalDraws | None = None,
        journal: Journal | None = None,
        *,
        before_turn: Callable[[], None] = lambda: None,
        thread: RowThread | None = None,
    ) -> None:
        """draws: what the function draws from the global generators; it seeds them. journal: of a function
        that goes on from what another process made of it. before_turn: called before its code goes on.
        thread: which runs the function, if the renderer's own does not.
        """
        self.value: Any = None
        self.error: Exception | None = None
        self.seconds: dict[str, float] = {}  # its share of other calls than forwards, see `Method`
        self.journal = journal or Journal()
        self.forward_s = 0.0  # its share of forwards
        self.num_forwards = len(self.journal.made)
        self.num_rows = sum(made.rows for made in self.journal.made)  # of all its forwards together
        self.first_forward_at = 0.0  # time.perf_counter(), like the next
        self.last_forward_at = 0.0
        self.draws = draws or GlobalDraws()
        self.is_waiting = False  # until no other task is under way, see `Batcher.wait`
        self.surroundings: ExitStack | None = None  # held for its whole life, see `Batcher.start_alone`
        self.thread = thread
        self._before_turn = before_turn
        self._function = thread or function
        self.greenlet = greenlet.greenlet(self._run)
        self._is_ending = False
        self.call: Call | None = None
        self.result: Result | None = None
        self.is_held: Callable[[], bool] = lambda: False  # see `JointCall`
        self.history: list[tuple[Call, Result]] | None = None  # all its calls, if somebody compares them

    @property
    def is_finished(self) -> bool:
        return bool(self.greenlet.dead)

    @property
    def is_away(self) -> bool:
        """Whether it runs by itself, and its end was not noticed yet."""
        return self.thread is not None and self.thread.is_away

    @property
    def batch_size(self) -> float:
        """Mean number of rows per forward."""
        return self.num_rows / self.num_forwards if self.num_forwards else 1.0

    def run(self) -> None:
        """Run all of it at once: for a function whose calls are not parked."""
        self.first_forward_at = time.perf_counter()
        self.greenlet.switch()
        self.last_forward_at = time.perf_counter()

    def resume(self) -> None:
        with self.turn():
            self.greenlet.switch()

    @contextmanager
    def turn(self) -> Iterator[None]:
        with self.draws.turn():
            self._before_turn()
            yield

    def pause(self, hub: greenlet.greenlet) -> None:
        """Stop here, where its function runs, until it is resumed."""
        if row := row_thread():
            row.pause()
        else:
            hub.switch()

    def end(self) -> None:
        self._is_ending = True
        if not self.is_finished:
            self.greenlet.throw()

    def _run(self) -> None:
        try:
            self.value = self._function()
        except Exception as error:  # whatever a recipe raises is this row's own failure
            self.error = error
        except greenlet.GreenletExit as error:
            if self._is_ending:
                raise
            self.error = RecipeError("the recipe raised GreenletExit", "raise an Exception")
            self.error.__cause__ = error


class Batcher:
    """Tasks that share forwards. All calls must come from one thread."""

    def __init__(self, forwards: Forwards) -> None:
        self._forwards = forwards
        self.tasks: dict[greenlet.greenlet, RowTask] = {}  # under way
        self.news = threading.Event()  # set whenever a task that has a thread says something
        self._hub: greenlet.greenlet | None = None
        self._process = GlobalDraws()  # what code around the tasks draws
        self.reach = forwards.reach([])  # the most rows that a forward of the last round could use

    @property
    def current(self) -> RowTask | None:
        """The task that is running right now, or whose thread asks."""
        if (row := row_thread()) is None:
            return self.tasks.get(greenlet.getcurrent())
        return next((task for task in self.tasks.values() if task.thread is row), None)

    @property
    def num_away(self) -> int:
        return sum(task.is_away for task in self.tasks.values())

    @property
    def is_waited_in(self) -> bool:
        """Whether a task waits for the others to end."""
        return any(task.is_waiting for task in self.tasks.values())

    def wait_for_away(self) -> None:
        """Wait until no task goes on by itself."""
        while not all(thread.has_news for thread in self._away()):
            self.news.wait()
            self.news.clear()

    def wait(self) -> None:
        """Stop the running task until the others have ended and were taken, or wait too."""
        task = self.current
        if task is None or joint_at_work() or self._hub is None or len(self.tasks) == 1:
            return
        task.is_waiting = True
        task.pause(self._hub)
        task.is_waiting = False

    def start(self, task: RowTask) -> RowTask:
        """Take a task that has not begun; return it."""
        self.tasks[task.greenlet] = task
        return task

    def start_alone(self, task: RowTask, around: Callable[[], AbstractContextManager[Any]]) -> RowTask:
        """Take a task whose code may replace methods of networks for its calls; no other may be under way.

        So what is put around methods stays there until it ends, and it makes its calls itself: it only stops
        before each.
        """
        assert all(other.is_away for other in self.tasks.values()), "others would run in its surroundings"
        task.surroundings = ExitStack()
        task.surroundings.enter_context(self._intercepted(around))
        return self.start(task)

    @property
    def is_surrounded(self) -> bool:
        """Whether a task is under way around which all is held that `step` would hold."""
        return any(task.surroundings for task in self.tasks.values())

    def step(self, around: Callable[[], AbstractContextManager[Any]] = nullcontext) -> list[RowTask]:
        """Run every task to its next forward; return those that finished, or else run the forwards.

        Finished tasks come back first, so that others can take their place in the forwards.
        around: held while tasks run, not while forwards do; what it puts around methods sees calls first.
        """
        self.park(around)
        finished = self.take_finished()
        if not finished:
            with as_in_pipelines(), self._process.preserved():
                self._run_forwards()
        return finished

    def park(self, around: Callable[[], AbstractContextManager[Any]] = nullcontext) -> None:
        """Run every task to its next forward or its end, and run no forward. around: see `step`.

        Around a task that is alone all this is held already.
        """
        surroundings = nullcontext() if self.is_surrounded else self._intercepted(around)
        with as_in_pipelines(), self._process.preserved(), surroundings:
            self._hub = greenlet.getcurrent()
            for task in self.tasks.values():
                is_held = task.is_waiting and not all(other.is_waiting for other in self.tasks.values())
                is_held = is_held or task.is_held()
                has_turn = not task.is_away or (task.thread is not None and task.thread.has_news)
                if task.call is None and has_turn and not is_held:
                    task.resume()

    @contextmanager
    def _intercepted(self, around: Callable[[], AbstractContextManager[Any]]) -> Iterator[None]:
        """Have tasks stop before the calls that they may share while the block runs."""
        with ExitStack() as stack:
            for name, method in self._forwards.methods.items():
                stack.enter_context(intercept({name: method.network}, self._park, method=method.name))
            with around():
                yield

    def take_finished(self) -> list[RowTask]:
        finished = [task for task in self.tasks.values() if task.is_finished]
        for task in finished:
            self._forget(task)
        return finished

    def drop(self, task: RowTask) -> None:
        """End one task where it is, and forget it."""
        with as_in_pipelines(), self._process.preserved(), task.turn():  # others go on
            task.end()
        self._forget(task)

    def cancel(self) -> None:
        """End all tasks where they are, the last one first, because each puts back what it changed."""
        with as_in_pipelines(), self._process.preserved():
            for task in reversed(self.tasks.values()):
                task.end()
        for task in [*self.tasks.values()]:
            self._forget(task)

    def _forget(self, task: RowTask) -> None:
        del self.tasks[task.greenlet]
        if task.surroundings:
            task.surroundings.close()

    @left_to_python
    def _park(self, name: str, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Stop a task before a call, until its result is there; a task that is alone makes it itself.

        And that only before forwards of denoisers.
        """
        if is_compiled_call():  # a plain call follows, in which nothing stops
            raise RecipeError(
                f"the row's recipe compiles {name}, so each of its rows is a plain call",
                "use `model.compile` in its place",
            )
        task, method = self.current, self._forwards.methods[name]
        if task is None or self._hub is None or is_private() or not method.is_as_it_was:
            return forward(*args, **kwargs)
        if joint := joint_at_work():
            return self._park_rows(task, joint, name, args, kwargs)
        is_alone = task.surroundings is not None
        if not is_alone:
            stay()
        call = parse_call(name, args, kwargs, task.draws)
        is_denoising = self._forwards.is_denoising(call)
        if is_alone and not is_denoising:
            return forward(*args, **kwargs)
        if is_denoising and (answer := task.journal.answer(call)):
            return answer[0]
        task.call = None if is_alone else call
        task.pause(self._hub)
        if is_alone:
            started = time.perf_counter()
            with self._forwards.spending(method.seconds.removesuffix("_s")):
                task.result = self._forwards.run_here(call, lambda: forward(*args, **kwargs))
            task.forward_s += time.perf_counter() - started
            self._note_forward(task, call, task.result, started)
        result, task.result = task.result, None
        assert result is not None
        if result.error is not None:
            raise result.error
        return result.value

    def _park_rows(self, task: RowTask, joint: JointCall, name: str, args: Any, kwargs: Any) -> Any:
        """Stop a task before a call for several rows, until each of these has the result of its own."""
        assert self._hub is not None
        for row, (own_args, own_kwargs) in zip(joint.tasks, joint.calls(name, args, kwargs), strict=True):
            if not row.is_finished:
                row.call = parse_call(name, own_args, own_kwargs, task.draws)
        task.pause(self._hub)
        # Of a row that was dropped, any result: nobody looks at it.
        results = [task.result if row.is_finished else row.result for row in joint.tasks]
        for error in (result.error for result in results if result and result.error):
            raise error
        return joined_rows([result.value for result in results if result])

    def _run_forwards(self) -> None:
        parked = [(task, task.call) for task in self.tasks.values() if task.call]
        if not parked:
            away = self._away()
            if away and not any(thread.has_news for thread in away):
                with self._forwards.spending("frames"):
                    self.news.wait()
            self.news.clear()
            return
        groups = self._forwards.groups([call for _, call in parked])
        denoising = [places for places in groups if self._forwards.is_denoising(parked[places[0]][1])]
        if denoising:  # what other calls share says nothing of how many rows to have under way
            forwards = [parked[places[0]][1] for places in denoising]
            before, self.reach = self.reach, self._forwards.reach(forwards)
            if self.reach > before:  # more rows may join these first
                return
        # Where no denoiser's forward is worth sharing, rows go one after another: the first is done soon.
        others = [places for places in groups if places not in denoising]
        chosen = denoising[:1] if self.reach == 1 else denoising
        for group in [*others, *chosen]:
            places = group
            if group not in others:  # asked after the forwards before it, which may have taught what pays
                places = group[: self._forwards.turns([parked[place][1] for place in group])]
            started, method = time.perf_counter(), self._forwards.methods[parked[places[0]][1].module]
            with self._forwards.spending(method.seconds.removesuffix("_s")):
                results = self._forwards.run([parked[place][1] for place in places])
            share_s = (time.perf_counter() - started) / len(places)
            for place, result in zip(places, results, strict=True):
                task, call = parked[place]
                task.call, task.result = None, result
                if task.history is not None:
                    task.history.append((call, result))
                if self._forwards.is_denoising(call):
                    task.forward_s += share_s
                    self._note_forward(task, call, result, started)
                else:
                    task.seconds[method.seconds] = task.seconds.get(method.seconds, 0.0) + share_s

    def _away(self) -> list[RowThread]:
        """Return the threads of tasks that go on by themselves."""
        return [task.thread for task in self.tasks.values() if task.thread and task.is_away]

    def _note_forward(self, task: RowTask, call: Call, result: Result, started: float) -> None:
        if not task.first_forward_at:
            task.first_forward_at = started
        task.last_forward_at = time.perf_counter()
        task.num_forwards += 1
        task.num_rows += result.rows
        # Where memory ran out, the row goes on from what was made before.
        if result.error is None or not is_out_of_memory(result.error):
            task.journal.note(call, result)


@contextmanager
def as_in_pipelines() -> Iterator[None]:
    """Switch gradients off, as pipelines do in their calls, and back at the end.

    torch keeps them per thread, not per greenlet: one row's exit must not switch another's on.
    """
    with torch.inference_mode(False), torch.no_grad():
        yield
