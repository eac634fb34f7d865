"""Half-done rows of an output, a file for each: which there are, and when they are deleted.

They save time and decide nothing: a row whose file is lost, damaged or of another machine begins again, and
one that a worker wrote late, cut off from its driver, is as good as any. The renderer tells whether it fits.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial

from framefleet.cluster.driver.task_queue import TaskQueue
from framefleet.cluster.worker.checkpointer import checkpoint_path
from framefleet.pipeline.errors import StoreError
from framefleet.pipeline.outputs.layout import CHECKPOINTS
from framefleet.pipeline.outputs.stores.store import Store

_NAME = re.compile(rf"{CHECKPOINTS}/([0-9a-f]{{32}})\.safetensors")

log = logging.getLogger(__name__)


def half_done_in(store: Store) -> Iterator[str]:
    """Yield the row_ids of all checkpoints; some of these rows may have a record by now."""
    return (match[1] for path in store.list(CHECKPOINTS) if (match := _NAME.fullmatch(path)))


class HalfDoneRows:
    """The rows that have a checkpoint. Deletes in the background."""

    def __init__(self, store: Store, *, is_whole: bool) -> None:
        """is_whole: what this run renders is all that is to be; if not, checkpoints of other rows stay."""
        self._store, self._is_whole = store, is_whole
        self._there: set[str] = set()
        self._deleting = TaskQueue("checkpoints")
        self._were_there = self._are_others = False

    def __contains__(self, row_id: str) -> bool:
        return row_id in self._there

    def __len__(self) -> int:
        return len(self._there)

    def find(self, is_pending: Callable[[str], bool | None]) -> None:
        """Find the checkpoints of earlier runs; delete those of rows that have a record.

        is_pending: False for these; None for rows that the job does not have now, and may have again.
        """
        for row_id in half_done_in(self._store):
            self.add(row_id)
        self._are_others = any(is_pending(row_id) is None for row_id in self._there)
        if self._is_whole:
            self.drop(row_id for row_id in list(self._there) if is_pending(row_id) is False)

    def add(self, row_id: str) -> None:
        self._were_there = True
        self._there.add(row_id)

    def drop(self, row_ids: Iterable[str] | None = None) -> None:
        """Stop using these checkpoints, or all, and delete them in the background."""
        gone = sorted(self._there if row_ids is None else self._there.intersection(row_ids))
        self._there.difference_update(gone)
        for row_id in gone:
            self._deleting.do(partial(self._delete, checkpoint_path(row_id)))

    def close(self, *, is_complete: bool) -> None:
        """Leave what is not deleted yet to the next run; if all rows have ended, delete the rest too."""
        if not is_complete:
            self._deleting.leave(after_s=0)
            return
        self._deleting.close()
        if (
            self._is_whole and self._were_there and not self._are_others
        ):  # also what workers wrote of rows that ended elsewhere
            try:
                self._store.delete_all(CHECKPOINTS)
            except StoreError as error:
                log.warning("could not delete %s: %s", self._store.url_of(CHECKPOINTS), error)

    def _delete(self, path: str) -> None:
        try:
            self._store.delete(path)
        except StoreError as error:  # the next run will
            log.warning("could not delete %s: %s", self._store.url_of(path), error)
