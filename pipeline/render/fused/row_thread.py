"""A row's recipe on a thread of its own, so that what it does with its frames need not keep others waiting.

The thread takes turns with the greenlet that stands for it: one of them waits for the other. Once it goes
away, it runs at the same time as whatever the renderer does, until it ends or comes back: it must, before a
network computes, as these are hooked and pinned for other rows.
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

_Word = Literal["pauses", "goes away", "comes back", "has ended"]
_here = threading.local()  # row: the RowThread of this thread


class RowThread:
    """Called in a greenlet; returns or raises what `function` does, which runs on another thread.

    is_away: it needs no turn. news: set whenever it says something. ident: of its thread, once it runs.
    """

    def __init__(
        self,
        function: Callable[[], Any],
        *,
        around: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> None:
        """around: held by the thread."""
        self.is_away = False
        self.news = threading.Event()
        self.ident: int | None = None
        self._function, self._around = function, around
        self._words: SimpleQueue[_Word] = SimpleQueue()
        self._answers: SimpleQueue[bool] = SimpleQueue()  # whether to go on
        self._is_ending = False
        self._hub: Any = None
        self._value: Any = None
        self._error: BaseException | None = None

    @property
    def has_news(self) -> bool:
        """Whether it wants a turn, or has ended."""
        return not self._words.empty()

    def __call__(self) -> Any:
        self._hub = greenlet.getcurrent().parent
        context, num_threads = contextvars.copy_context(), torch.get_num_threads()
        threading.Thread(target=context.run, args=(self._run, num_threads), name="row", daemon=True).start()
        while (word := self._words.get()) != "has ended":
            try:
                if word != "comes back" and not self._is_ending:
                    self._hub.switch()
            except greenlet.GreenletExit:
                self._is_ending = True
            if word != "goes away":
                self._answers.put(not self._is_ending)
        self.is_away = False
        if self._error is not None:
            raise self._error
        return self._value

    def pause(self) -> None:
        """Let the renderer go on until it is this row's turn again. On this thread."""
        self.come_back()
        self._say("pauses")

    def go_away(self) -> None:
        """Need no turn until `come_back`, or the end. On this thread."""
        self.is_away = True
        self._words.put("goes away")
        self.news.set()

    def come_back(self) -> None:
        """Wait for a turn, if it is away. On this thread."""
        if self.is_away:
            self._say("comes back")
            self.is_away = False

    def _say(self, word: _Word) -> None:
        if self._is_ending:
            raise greenlet.GreenletExit
        self._words.put(word)
        self.news.set()
        if not self._answers.get():
            raise greenlet.GreenletExit

    def _run(self, num_threads: int) -> None:
        self.ident, _here.row = threading.get_ident(), self
        torch.set_num_threads(num_threads)  # OpenMP keeps it per thread, and kernels go by it
        try:
            with self._around():
                self._value = self._function()
        except BaseException as error:  # raised again where the greenlet is
            self._error = error
        self._words.put("has ended")
        self.news.set()


def row_thread() -> RowThread | None:
    """Return that of the running thread; None on a thread that is no row's."""
    return getattr(_here, "row", None)


def is_away() -> bool:
    """Whether the running thread is a row's that needs no turn."""
    row = row_thread()
    return row is not None and row.is_away


@contextmanager
def networks_at_home() -> Iterator[None]:
    """Have rows that are away come back before a network computes."""

    def come_back(*_: Any) -> None:
        if (row := row_thread()) is not None:
            row.come_back()

    handle = nn.modules.module.register_module_forward_pre_hook(come_back)
    try:
        yield
    finally:
        handle.remove()
