"""Read what rows will need before they start, so that rendering does not wait for the network."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

# Reads wait for servers, not for this machine; those of one that does not answer must not keep all others.
_NUM_THREADS = 16
# As many images as two leases name; of videos a few, the others are read when their turn comes.
_MAX_BYTES = 512 * 2**20


class ReadAhead:
    """Keeps what it has read, bounded by bytes; what was not asked for longest goes. For several threads."""

    def __init__(self, read: Callable[[str], bytes], *, max_bytes: int = _MAX_BYTES) -> None:
        self._read = read
        self._max_bytes = max_bytes
        self._threads = ThreadPoolExecutor(_NUM_THREADS, thread_name_prefix="read")
        self._lock = threading.Lock()  # of what follows
        self._reads: OrderedDict[str, Future[bytes]] = OrderedDict()

    def start(self, uri: str) -> Future[bytes] | None:
        """Begin to read; return what is read. None: what was read already fills the bound."""
        with self._lock:
            if uri not in self._reads and self._held() < self._max_bytes:
                self._reads[uri] = self._threads.submit(self._read, uri)
            return self._reads.get(uri)

    def read(self, uri: str) -> bytes:
        """Return the bytes at `uri`; raises what reading them raised. A failed read is not kept."""
        with self._lock:
            found = self._reads.get(uri)
        try:
            return found.result() if found else self._read(uri)
        finally:
            with self._lock:
                self._settle(uri)

    def _settle(self, uri: str) -> None:
        """Let go of a read that failed, and of the oldest ones above the bound."""
        if uri in self._reads:
            self._reads.move_to_end(uri)
        excess = self._held() - self._max_bytes
        for known, read in list(self._reads.items()):
            if read.done() and read.exception():
                del self._reads[known]
            elif read.done() and excess > 0:
                excess -= len(read.result())
                del self._reads[known]

    def _held(self) -> int:
        return sum(
            len(read.result()) for read in self._reads.values() if read.done() and not read.exception()
        )
