"""Signals that ask this process to end, put off until its work can be left. For drivers and workers."""

from __future__ import annotations

import contextlib
import logging
import signal
import socket
import threading
import time
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Self

# Ctrl-C; what machines and schedulers send; a terminal that went. Windows lacks the last.
SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
TELL_EVERY_S = 5.0
log = logging.getLogger(__name__)


class Stop:
    """As a context: the first signal sets `is_asked`, Ctrl-C again `is_urgent`, a third is not put off.

    The first goes where it would have gone when the context ends, unless an error ends it. Only Ctrl-C
    hastens: others come twice from who sends them, as from a kernel and a shell when a terminal goes. Signals
    that this process ignores (SIGHUP under nohup) or leaves to the system stay so, and so do all in threads.
    """

    def __init__(self) -> None:
        self._asked: list[int] = []
        self._handlers: dict[int, Callable[[int, FrameType | None], object]] = {}
        # Where each signal's number arrives: a handler is called once for two that come while Ray waits.
        self._numbers: tuple[socket.socket, socket.socket] | None = None
        self._former_fd = -1

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            handlers = {number: signal.getsignal(number) for number in SIGNALS}
            self._handlers = {number: handler for number, handler in handlers.items() if callable(handler)}
            self._numbers = socket.socketpair()
            for end in self._numbers:
                end.setblocking(False)
            self._former_fd = signal.set_wakeup_fd(self._numbers[1].fileno(), warn_on_full_buffer=False)
        for number in self._handlers:
            signal.signal(number, self._note)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._so_far()
        if self._numbers:
            signal.set_wakeup_fd(self._former_fd)
            for end in self._numbers:
                end.close()
            self._numbers = None
        if kind is None:
            self.check()

    @property
    def is_asked(self) -> bool:
        return bool(self._so_far())

    @property
    def is_urgent(self) -> bool:
        return len(self._so_far()) > 1

    def ask(self) -> None:
        """Do once what Ctrl-C does."""
        if not self._so_far():
            self._asked.append(signal.SIGINT)

    def check(self) -> None:
        """Deliver a signal that was put off: mostly, KeyboardInterrupt is raised."""
        if request := self._so_far():
            if request[0] not in self._handlers:  # in a thread, where no signal comes
                raise KeyboardInterrupt
            self._handlers[request[0]](request[0], None)

    def _so_far(self) -> list[int]:
        """Return the signals that came and count."""
        with contextlib.suppress(BlockingIOError):
            for number in self._numbers[0].recv(4096) if self._numbers else b"":
                if number in self._handlers and (not self._asked or number == signal.SIGINT):
                    self._asked.append(number)
        return self._asked

    def _note(self, number: int, frame: FrameType | None) -> None:
        if len(self._so_far()) > 2:
            self._handlers[number](number, frame)


def wait_for_rows(
    turn: Callable[[], None], in_hand: Callable[[], Mapping[str, int]], stop: Stop, *, limit_s: float
) -> None:
    """Take turns until no worker has rows, the limit has passed, or Ctrl-C came again.

    turn: follows what happens for a moment. in_hand: how many rows each worker has that has any.
    """
    began = reported = time.monotonic()
    if left := in_hand():
        log.warning(
            "stopping: workers save %s half-done rows, at most %.0f s; press Ctrl-C again to stop at once",
            sum(left.values()),
            limit_s,
        )
    while left and not stop.is_urgent and (now := time.monotonic()) - began < limit_s:
        if now - reported >= TELL_EVERY_S:
            reported = now
            waiting = ", ".join(f"{worker} ({rows})" for worker, rows in left.items())
            log.warning("waiting for the rows of %s, for %.0f s so far", waiting, now - began)
        turn()
        left = in_hand()
    if left:
        log.warning("stopping without %s rows that were not saved in time", sum(left.values()))
