"""Keeps the gallery of a local output up to date while a job writes there, and writes it at the end."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from framefleet.jobs.gallery.gallery import write_gallery
from framefleet.pipeline.outputs.parts.records import FAILURES, RECORDS
from framefleet.pipeline.outputs.stores.store import Store

_EVERY_S = 15.0
_MAX_SHARE = 0.02  # of the driver's time: an output of millions of rows takes minutes to read

log = logging.getLogger(__name__)


@contextmanager
def refreshed_gallery(store: Store) -> Iterator[None]:
    """Write the gallery every so often, and when the block ends, however it ends; never fail for it.

    Of an output that is no local folder nothing is written: each file costs there.
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
        if store.list(RECORDS) or store.list(FAILURES):
            _write(store)


def _refresh(store: Store, is_over: threading.Event) -> None:
    rest_s = _EVERY_S
    while not is_over.wait(rest_s):
        began = time.monotonic()
        _write(store)
        rest_s = max(_EVERY_S, (time.monotonic() - began) / _MAX_SHARE)


def _write(store: Store) -> None:
    try:
        write_gallery(store)
    except Exception as error:  # whatever it is: clips and records are there, and the page is derived
        log.warning("no gallery: %s", error)
