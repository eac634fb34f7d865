"""In: things to do. Out: done one after another, in the background, in a thread of their own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import Queue


class TaskQueue:
    """A queue and its thread, a daemon's: a process that must end does not wait for what hangs."""

    def __init__(self, name: str) -> None:
        self._tasks: Queue[Callable[[], None] | None] = Queue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._lock = threading.Lock()  # guards the next
        self._error: BaseException | None = None
        self._is_left = False

    @property
    def num_waiting(self) -> int:
        """How many things are not done yet."""
        return self._tasks.unfinished_tasks

    def do(self, task: Callable[[], None]) -> None:
        """Do this after all that was asked before, whatever became of it."""
        if self._thread.ident is None:
            self._thread.start()
        self._tasks.put(task)

    def check(self) -> None:
        """Raise, once, what one of them raised."""
        with self._lock:
            error, self._error = self._error, None
        if error is not None:
            raise error

    def wait(self) -> None:
        """Return when all is done; raise what one of them raised."""
        self._tasks.join()
        self.check()

    def close(self) -> None:
        """Do all that was asked, and nothing more."""
        self._tasks.put(None)
        if self._thread.ident is not None:
            self._thread.join()
        self.check()

    def leave(self, *, after_s: float) -> None:
        """Do what was asked so far, and then nothing more; raises nothing."""
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
