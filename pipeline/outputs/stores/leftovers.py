"""What killed writers left half written in an output: it is removed, beside whatever else begins."""

from __future__ import annotations

import logging
import threading

from framefleet.pipeline.errors import FramefleetError
from framefleet.pipeline.outputs.stores.store import Store

log = logging.getLogger(__name__)


def sweep_beside(store: Store) -> threading.Thread:
    """Remove leftovers in a thread: a folder of a million clips is looked through. For who holds the lock."""
    thread = threading.Thread(target=_sweep, args=[store], name="sweep", daemon=True)
    thread.start()
    return thread


def _sweep(store: Store) -> None:
    try:
        if count := store.sweep():
            log.info("%s: removed %d half-written files of earlier runs", store.url_of(""), count)
    except FramefleetError as error:  # no reader sees them, and the next run tries again
        log.info("%s: half-written files of earlier runs are left: %s", store.url_of(""), error.problem)
