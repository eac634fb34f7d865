"""The servers of one engine: which is free, silent or busy, and what each has done."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

from framefleet.pipeline.metrics import SERVER_DOWN_SECONDS, SERVER_IDLE_SECONDS, SERVER_ROWS

_LOOK_S = 0.05  # between two checks for a free place
_LOAD_S = 5.0  # pause for a busy server that does not say how long


@dataclass(slots=True, eq=False)
class Server:
    """down_since: when it last answered, if it does not answer now. busy_since: since when it accepts no
    rows. next_at: when it may be given another. poll_at: when to ask it again about those that it has.
    """

    url: str
    num_active: int = 0
    num_done: int = 0
    down_since: float | None = None
    busy_since: float | None = None
    next_at: float = 0.0
    poll_at: float = 0.0
    pause_s: float = 0.0  # the last one
    num_failed: int = 0  # of its clips in a row came to nothing
    why: str = ""  # it did not answer last
    idle_s: float = 0.0
    down_s: float = 0.0
    counted_at: float = 0.0

    @property
    def name(self) -> str:
        return urlsplit(self.url).netloc

    def count(self, now: float) -> None:
        """Count the time since the last call."""
        passed, self.counted_at = now - self.counted_at, now
        if self.down_since is not None:
            self.down_s += passed
        elif not self.num_active:
            self.idle_s += passed

    def is_free(self, parallel: int, now: float) -> bool:
        return self.down_since is None and self.next_at <= now and self.num_active < parallel


class Servers:
    """Thread-safe."""

    def __init__(self, urls: Sequence[str], parallel: int) -> None:
        now = time.monotonic()
        self._all = [Server(url, counted_at=now) for url in dict.fromkeys(urls)]
        self._parallel, self._lock = parallel, threading.Lock()

    def __iter__(self) -> Iterator[Server]:
        return iter(self._all)

    def named(self, url: str) -> Server | None:
        return next((server for server in self._all if server.url == url), None)

    def room(self) -> int:
        """Return how many rows the servers that answer have room for; at least one."""
        return max(1, self._parallel * sum(server.down_since is None for server in self._all))

    def useless_s(self) -> float:
        """Return for how long no server has answered, had a row or accepted one; 0 if one does now."""
        now = time.monotonic()

        def since(server: Server) -> float:
            if server.down_since is not None:
                return server.down_since
            is_idle = server.busy_since is not None and not server.num_active
            return server.busy_since if is_idle and server.busy_since is not None else now

        return min(now - since(server) for server in self._all)

    @contextmanager
    def place(
        self, wait: Callable[[float], None], check: Callable[[], None], at: Server | None = None
    ) -> Iterator[Server]:
        """Hold a place at the server with the most room, or at a given server even if it is full.

        check: raises if there is no point in waiting any longer.
        """
        while (server := self._take(at)) is None:
            check()
            wait(_LOOK_S)
        try:
            yield server
        finally:
            with self._lock:
                server.count(time.monotonic())
                server.num_active -= 1

    def _take(self, at: Server | None) -> Server | None:
        with self._lock:
            now = time.monotonic()
            free = [at] if at else [one for one in self._all if one.is_free(self._parallel, now)]
            if not free:
                return None
            server = min(free, key=lambda one: (one.num_failed, one.num_active))
            server.count(now)
            server.num_active += 1
            return server

    def answered(self, server: Server) -> None:
        with self._lock:
            server.count(time.monotonic())
            server.down_since = None

    def silent(self, server: Server, why: str = "") -> None:
        """It did not answer, or not as the API has it."""
        with self._lock:
            server.why = why or server.why
            now = time.monotonic()
            server.count(now)
            server.down_since = now if server.down_since is None else server.down_since

    def busy(self, server: Server, pause_s: float | None, *, why: str = "") -> None:
        """Note that it is busy. pause_s: for how long, if it says so. why: what it says instead of that."""
        with self._lock:
            server.why = why or server.why
            server.pause_s = pause_s or min(2 * server.pause_s or _LOAD_S / 8, 4 * _LOAD_S)
            now = time.monotonic()
            server.next_at = now + server.pause_s
            server.busy_since = now if server.busy_since is None else server.busy_since

    def crowded(self, server: Server, pause_s: float | None) -> None:
        """Note that it is too busy even to say what became of its rows."""
        self.busy(server, pause_s)
        server.poll_at = server.next_at

    def taken(self, server: Server) -> None:
        """Note that it has accepted a row."""
        with self._lock:
            server.count(time.monotonic())
            server.down_since, server.busy_since, server.pause_s = None, None, 0.0

    def done(self, server: Server) -> None:
        with self._lock:
            server.num_done += 1
            server.num_failed = 0

    def failed(self, server: Server) -> None:
        """What it has made is no clip. One that fails at once must not get all rows before the others."""
        with self._lock:
            if len(self._all) > 1:
                server.num_failed += 1
                pause_s = _LOAD_S / 8 * 2 ** min(server.num_failed, 5)  # at most that of a busy one
                server.next_at = max(server.next_at, time.monotonic() + pause_s)

    def figures(self) -> dict[str, float]:
        figures, now = {}, time.monotonic()
        with self._lock:
            for server in self._all:
                server.count(now)
                figures[SERVER_ROWS.key(server.name)] = float(server.num_done)
                figures[SERVER_IDLE_SECONDS.key(server.name)] = server.idle_s
                figures[SERVER_DOWN_SECONDS.key(server.name)] = server.down_s
        return figures
