"""Which nodes of the cluster are to go soon: spot machines about to be taken, or told to by SIGTERM."""

from __future__ import annotations

import logging
import threading
from types import TracebackType
from typing import Self

import ray

_LOOK_S = 2.0  # the shortest notice of a cloud is 30 s

log = logging.getLogger(__name__)


class DrainingNodes:
    """As a context within a connection: `nodes`, looked up every two seconds in a thread of its own.

    A lookup waits as long as the cluster's head does not answer, and nobody else is to wait with it.
    """

    def __init__(self) -> None:
        self.nodes: frozenset[str] = frozenset()
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._look, name="draining", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over.set()
        self._thread.join(timeout=2 * _LOOK_S)

    def _look(self) -> None:
        while not self._is_over.wait(_LOOK_S):
            try:
                # Ray's public interface lacks it; Ray Train, Serve and Data look here too:
                # https://github.com/ray-project/ray/blob/master/python/ray/train/v2/_internal/execution/preemption.py
                self.nodes = frozenset(ray._private.state.state.get_draining_nodes())
            except Exception as error:  # whatever a private interface raises: no notice, then
                log.debug("cannot ask which nodes are draining: %s", error)
