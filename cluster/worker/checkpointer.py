"""Half-done rows of one worker, to the store and back: written in parallel with the rendering."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

from framefleet.pipeline.errors import StoreError
from framefleet.pipeline.outputs.layout import CHECKPOINTS
from framefleet.pipeline.outputs.stores.store import Store

if TYPE_CHECKING:
    from framefleet.cluster.worker.engine_rows import EngineRows, LeftRow
    from framefleet.pipeline.render.checkpoints.checkpoint import HalfDone
    from framefleet.pipeline.render.renderer import Renderer

_MAX_HEADER_BYTES = 32 << 20  # more than is read: some 220 for each call of a denoiser

log = logging.getLogger(__name__)


def checkpoint_path(row_id: str) -> str:
    return f"{CHECKPOINTS}/{row_id}.safetensors"


class Checkpointer:
    def __init__(
        self, store: Store, report: Callable[[str, bool, bool], None], *, every_s: float, num_threads: int
    ) -> None:
        """report: called from any thread, once a row's checkpoint is written or has failed: with its row_id,
        whether it is saved, and whether this worker no longer renders the row. every_s: between two
        checkpoints of a row under way; 0: none.
        """
        self._store, self._report, self._every_s = store, report, every_s
        self._writing = ThreadPoolExecutor(num_threads, "keep")
        self._reading = ThreadPoolExecutor(num_threads, "fetch")
        self._under_way: list[Future[None]] = []  # writes
        self._since: dict[str, float] = {}  # when each row of the renderer began, or was saved last

    def close(self) -> None:
        """Wait for what is being written or read, and end the threads."""
        self._writing.shutdown()
        self._reading.shutdown()

    def read(self, row_id: str) -> bytes | None:
        """Return the checkpoint of a row; None if it cannot be read, with the reason in the log."""
        from framefleet.pipeline.render.checkpoints.checkpoint import MAX_KEPT_BYTES

        try:  # of a larger file, its beginning, which the renderer refuses
            return self._store.read(checkpoint_path(row_id), MAX_KEPT_BYTES + _MAX_HEADER_BYTES)
        except (FileNotFoundError, StoreError) as error:
            about = {"row_id": row_id}
            log.warning("row %s starts over: its checkpoint cannot be read: %s", row_id, error, extra=about)
            return None

    def fetch(self, row_id: str) -> Future[bytes | None]:
        return self._reading.submit(self.read, row_id)

    def begun(self, row_id: str) -> None:
        self._since[row_id] = time.monotonic()

    def ended(self, row_id: str) -> None:
        self._since.pop(row_id, None)

    def look(self, renderer: Renderer | EngineRows) -> None:
        """Save rows that are due, between two steps, unless earlier ones are still being written."""
        now = time.monotonic()
        due = {row_id for row_id, since in self._since.items() if now - since >= self._every_s}
        if not (self._every_s and due and all(write.done() for write in self._under_way)):
            return
        self._under_way.clear()
        self._since.update(dict.fromkeys(due, now))
        for row in renderer.save():
            if row.row_id in due:
                self.keep(row, is_over=False)

    def keep(self, row: HalfDone | LeftRow, *, is_over: bool) -> None:
        """Write the checkpoint of a row in the background. is_over: this worker no longer renders it."""
        self._under_way.append(self._writing.submit(self.keep_now, row, is_over=is_over))

    def keep_now(self, row: HalfDone | LeftRow, *, is_over: bool) -> None:
        is_saved = False
        try:
            if (content := row.checkpoint) is not None:
                self._store.write(checkpoint_path(row.row_id), content)
                is_saved = True
        except (StoreError, MemoryError) as error:  # then the row starts over
            about = {"row_id": row.row_id}
            log.warning("row %s: its checkpoint could not be written: %s", row.row_id, error, extra=about)
        finally:
            self._report(row.row_id, is_saved, is_over)
