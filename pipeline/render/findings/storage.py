"""Where it is kept what was found: this machine's cache folder and, where there is one, the output.

Read when a shape is met first, written by another thread than the one that renders. Whatever goes wrong with
a place costs another search and nothing else: it is logged, and the place left alone from then on. One that
does not answer in time is not waited for.
"""

from __future__ import annotations

import contextlib
import logging
import time
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path

from framefleet.pipeline.errors import FramefleetError, JobError
from framefleet.pipeline.model.sources.cache import cache_folder
from framefleet.pipeline.outputs.layout import PROBES
from framefleet.pipeline.outputs.stores.deadline import Soon
from framefleet.pipeline.outputs.stores.store import Store
from framefleet.pipeline.render.findings.finding import MAX_FILE_BYTES, Found, found_in, to_bytes, united

log = logging.getLogger(__name__)

# In an output: hidden, as what is nobody's data; readers of Parquet skip such names.
# Drivers, and machines' other work, change: what is as old is found anew. Thousands of shapes have a few MB.
KEPT_S = 30 * 24 * 3600
MAX_FILES = 10_000
# How long the end of a rendering waits for a slow store.
_PATIENCE_S = 5.0


class Places:
    """Read one after another until one knows, and all written; of several writers at once the last wins."""

    def __init__(self, output: Store | None = None) -> None:
        self._cache = cache_folder() / PROBES.lstrip(".")
        stores = [(Store(str(self._cache)), "")]
        if output is not None:
            stores.append((output, f"{PROBES}/"))
        self._stores = stores
        self.num_confirmed = 0  # batch sizes that were read here, and proven
        self._soon = Soon("probes-read")
        self._writer: ThreadPoolExecutor | None = None
        self._waiting: list[Future[None]] = []

    def read(self, name: str) -> Found | None:
        """Return what is known under a name; None where nothing is, or what is there is damaged or late."""
        return self._soon.ask(partial(self._read_first, name))

    def _read_first(self, name: str) -> Found | None:
        for store, folder in list(self._stores):
            if (found := self._read(store, folder, name)) is not None:
                return found
        return None

    def keep(self, name: str, found: Found) -> None:
        """Have it written, soon, next to what others found."""
        if self._writer is None:
            self._writer = ThreadPoolExecutor(1, thread_name_prefix="probes")
            self._waiting.append(self._writer.submit(self._sweep))
        self._waiting = [future for future in self._waiting if not future.done()]
        self._waiting.append(self._writer.submit(self._write, name, found))

    def finish(self) -> None:
        """Wait for what is being written, for a while."""
        wait(self._waiting, _PATIENCE_S)

    def _read(self, store: Store, folder: str, name: str) -> Found | None:
        path = f"{folder}{name}.json"
        try:
            return found_in(store.read(path, MAX_FILE_BYTES + 1), store.url_of(path))
        except FileNotFoundError:
            return None
        except JobError as error:
            log.info("%s; it is found anew", error.problem)
        except FramefleetError as error:
            self._leave(store, error)
        return None

    def _write(self, name: str, found: Found) -> None:
        for store, folder in list(self._stores):
            there = self._read(store, folder, name) or Found()
            if (both := united(there, found)) == there:
                continue
            if len(content := to_bytes(both)) > MAX_FILE_BYTES:
                content = to_bytes(found)
            try:
                store.write(f"{folder}{name}.json", content)
            except FramefleetError as error:
                self._leave(store, error)

    def _leave(self, store: Store, error: FramefleetError) -> None:
        log.info("batch sizes are not kept in %s: %s", store.url_of(""), error.problem)
        self._stores = [place for place in self._stores if place[0] is not store]

    def _sweep(self) -> None:
        """Delete what is old, and the oldest of too much, from this machine's cache folder."""
        by_age = sorted((_written_at(file), file) for file in self._cache.glob("*/*"))
        surplus = len(by_age) - MAX_FILES
        oldest = time.time() - KEPT_S
        for place, (written_at, file) in enumerate(by_age):
            if place < surplus or written_at < oldest:
                with contextlib.suppress(OSError):
                    file.unlink()
                    file.parent.rmdir()  # of other surroundings, once it is empty


def _written_at(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except OSError:  # another process sweeps too
        return 0.0
