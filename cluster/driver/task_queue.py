"""In: tasks. Out: done one after another, in the background, in a thread of their own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import Queue


class TaskQueue:
    """A queue and its daemon thread: a process that must end does not wait for a task that hangs."""

    def __init__(self, name: str) -> None:
        self._tasks: Queue[Callable[[], None] | None] = Queue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._lock = threading.Lock()  # guards the next
        self._error: BaseException | None = None
        self._is_left = False

    @property
    def num_waiting(self) -> int:
        """How many tasks are not done yet."""
        return self._tasks.unfinished_tasks

    def do(self, task: Callable[[], None]) -> None:
        """Do this task after all that were added before, even if one of those fails."""
        if self._thread.ident is None:
            self._thread.start()
        self._tasks.put(task)

    def check(self) -> None:
        """Raise, once, what a task raised."""
        with self._lock:
            error, self._error = self._error, None
        if error is not None:
            raise error

    def wait(self) -> None:
        """Return when all tasks are done; raise what one of them raised."""
        self._tasks.join()
        self.check()

    def close(self) -> None:
        """Do all tasks that were added, and accept no more."""
        self._tasks.put(None)
        if self._thread.ident is not None:
            self._thread.join()
        self.check()

    def leave(self, *, after_s: float) -> None:
        """Do the tasks that were added so far, and then no more; raises nothing."""
        self._tasks.put(None)
        if self._thread.ident is not None:
            self._thread.join(after_s)
        self._is_left = True

    def _run(self) -> None:
        while (task := self._tasks.get()) is not None and not self._is_left:
            try:
                task()
            except BaseException as error:  # for `check`: a thread has no caller
                with self._lock:
                    self._error = self._error or error
            finally:
                self._tasks.task_done()
