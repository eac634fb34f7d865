"""Keeps the gallery of a local output up to date while a job writes there, and writes it at the end."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager

from framefleet.jobs.look.gallery.gallery import write_gallery
from framefleet.pipeline.outputs.layout import FAILURES, RECORDS
from framefleet.pipeline.outputs.stores.store import Store

_EVERY_S = 15.0
_MAX_SHARE = 0.02  # of the driver's time: an output of millions of rows takes minutes to read

log = logging.getLogger(__name__)


@contextmanager
def refreshed_gallery(store: Store) -> Iterator[None]:
    """Write the gallery every so often, and when the block ends without an error; never fail for it.

    For who holds the output's lock. Who is interrupted has no minutes to wait for a page, which
    `framefleet gallery` writes too. Of an output that is no local folder nothing is written: each file costs
    there.
    """
    if "://" in store.url_of(""):
        yield
        return
    is_over = threading.Event()
    refreshing = threading.Thread(target=_refresh, args=(store, is_over), name="gallery", daemon=True)
    refreshing.start()
    try:
        yield
    finally:
        is_over.set()
        refreshing.join()
    _write(store)


def _refresh(store: Store, is_over: threading.Event) -> None:
    def check() -> None:
        if is_over.is_set():
            raise CancelledError

    rest_s = _EVERY_S
    while not is_over.wait(rest_s):
        began = time.monotonic()
        _write(store, check)
        rest_s = max(_EVERY_S, (time.monotonic() - began) / _MAX_SHARE)


def _write(store: Store, check: Callable[[], None] = lambda: None) -> None:
    try:
        if store.list(RECORDS) or store.list(FAILURES):
            write_gallery(store, is_ours=True, check=check)
    except CancelledError:
        log.debug("the gallery was not finished: the job has ended")
    except Exception as error:  # whatever it is: clips and records are there, and the page is derived
        log.warning("no gallery: %s", error)
