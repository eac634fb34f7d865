"""A row's recipe on a thread of its own, so that what it does with its frames keeps no others waiting.

The thread takes turns with the greenlet that stands for it: one of them waits for the other. Once it goes
away, it runs at the same time as whatever the renderer does, until it ends. It must call no network then:
these are hooked, pinned and cached for other rows. A row that does has to begin again, and to stay.
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from queue import SimpleQueue
from typing import Any, Literal

import greenlet
import torch
from torch import nn

_Word = Literal["pauses", "goes away", "has ended"]
_here = threading.local()  # row: the RowThread of this thread


class CameBack(Exception):
    """A row that was away called a network."""


class RowThread:
    """Called in a greenlet; returns or raises what `function` does, which runs on another thread.

    Raises CameBack where that called a network while it was away.
    """

    def __init__(
        self,
        function: Callable[[], Any],
        *,
        around: Callable[[], AbstractContextManager[Any]] = nullcontext,
        news: threading.Event | None = None,
    ) -> None:
        """around: held by the thread. news: set whenever it says something; several may share it."""
        self.is_away = False  # it needs no turn
        self._news = news or threading.Event()
        self._function, self._around = function, around
        self._words: SimpleQueue[_Word] = SimpleQueue()
        self._answers: SimpleQueue[bool] = SimpleQueue()  # whether to go on
        self._is_ending = self._has_come_back = False
        self._interrupt: KeyboardInterrupt | None = None
        self._hub: Any = None
        self._thread = threading.current_thread()  # its own, once it runs
        self._value: Any = None
        self._error: BaseException | None = None

    @property
    def has_news(self) -> bool:
        """Whether it wants a turn, or has ended."""
        return not self._words.empty()

    def __call__(self) -> Any:
        self._hub = greenlet.getcurrent().parent
        context, num_threads = contextvars.copy_context(), torch.get_num_threads()
        run = (self._run, num_threads)
        self._thread = threading.Thread(target=context.run, args=run, name="row", daemon=True)
        self._thread.start()
        while (word := self._next_word()) != "has ended":
            try:
                if not self._is_ending:
                    self._hub.switch()
            except greenlet.GreenletExit:
                self._is_ending = True
            if word == "pauses":
                self._answers.put(not self._is_ending)
        self.is_away = False
        if self._interrupt is not None:
            raise self._interrupt
        if self._has_come_back:
            raise CameBack
        if self._error is not None:
            raise self._error
        return self._value

    def _next_word(self) -> _Word:
        """Wait for the thread's next message; at an interrupt, which the main thread gets, for its end."""
        try:
            return self._words.get()
        except KeyboardInterrupt as error:  # a word that just came is lost
            self._is_ending, self._interrupt = True, error
            self._answers.put(False)
            self._thread.join()
            return "has ended"

    def pause(self) -> None:
        """Let the renderer continue until it is this row's turn again. On this thread."""
        self.stay()
        if self._is_ending:
            raise greenlet.GreenletExit
        self._words.put("pauses")
        self._news.set()
        if not self._answers.get():
            raise greenlet.GreenletExit

    def go_away(self) -> None:
        """Take no more turns until the end. On this thread."""
        self.is_away = True
        self._words.put("goes away")
        self._news.set()

    def stay(self) -> None:
        """End here if it is away, because what follows is not done away. On this thread."""
        if self.is_away:
            self._has_come_back = True
            raise greenlet.GreenletExit

    def _run(self, num_threads: int) -> None:
        _here.row = self
        torch.set_num_threads(num_threads)  # OpenMP keeps it per thread, and kernels go by it
        try:
            with self._around():
                self._value = self._function()
        except BaseException as error:  # raised again where the greenlet is
            self._error = error
        self._words.put("has ended")
        self._news.set()


def row_thread() -> RowThread | None:
    """Return the row's thread that is running; None on any other thread."""
    return getattr(_here, "row", None)


def is_away() -> bool:
    """Whether the running thread is a row's that needs no turn."""
    row = row_thread()
    return row is not None and row.is_away


def stay() -> None:
    """End a row here that is away: what follows is the renderer's."""
    if (row := row_thread()) is not None:
        row.stay()


@contextmanager
def networks_at_home() -> Iterator[None]:
    """End rows that are away before a network computes."""

    def end(*_: Any) -> None:
        stay()

    handle = nn.modules.module.register_module_forward_pre_hook(end)
    try:
        yield
    finally:
        handle.remove()
