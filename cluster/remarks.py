"""What a worker's log says of half-done rows, for its driver to tell: nobody reads a worker's own."""

from __future__ import annotations

import logging
from collections import deque

from framefleet.pipeline.guards.public import public_text

LOGGERS = ("framefleet.cluster.keeper", "framefleet.pipeline.render.half_done")
_MAX_KEPT, _MAX_LENGTH = 64, 1000  # between two reports, about a second


class Remarks(logging.Handler):
    """Keeps warnings of these loggers until they are taken. From any thread."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._texts: deque[str] = deque(maxlen=_MAX_KEPT)

    def listen(self) -> None:
        for name in LOGGERS:
            logging.getLogger(name).addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self._texts.append(public_text(record.getMessage())[:_MAX_LENGTH])

    def take(self) -> tuple[str, ...]:
        return tuple(self._texts.popleft() for _ in range(len(self._texts)))
