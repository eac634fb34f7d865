"""Lock columns of an output's records, so that only one process at a time fills them.

`columns/<epoch>.json` says who fills which columns, and which questions they ask. Columns with the same
question count as one. Writers of different columns do not wait for each other, so a file also says which
earlier writers may still write. Whatever a replaced writer still writes is ignored, by the seal in the file
of its successor.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import pyarrow as pa

from framefleet.api.errors import JobError, OutputInUse
from framefleet.api.outputs import Store
from framefleet.cluster.driver.epoch_lock import BEAT_S, EXPIRY_S, EpochLock, Writer
from framefleet.pipeline.outputs.layout import COLUMN_LOCKS, SCORES
from framefleet.pipeline.outputs.parts.parts import PartWriter
from framefleet.pipeline.outputs.parts.record_tables import OF_CLIP
from framefleet.pipeline.outputs.parts.records import column_digest
from framefleet.pipeline.outputs.parts.seals import (
    Sealed,
    column_parts,
    column_seal,
    epoch_path,
    epochs_of,
    numbered_run,
    parts_in,
    sealed_of,
)

_OF_CLIP = pa.schema([("row_id", pa.string()), *OF_CLIP])


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnWriter(Writer):
    """A process that fills columns."""

    folder: ClassVar[str] = COLUMN_LOCKS

    columns: tuple[str, ...]
    digests: tuple[str, ...] = ()  # of the columns' questions
    others: tuple[int, ...] = ()  # earlier epochs whose writers may still write other columns
    replaced: Mapping[int, Sealed] = field(default_factory=dict)  # as in `seals.ColumnSeal`
    refused: Mapping[str, int] = field(default_factory=dict)  # clips by column, also of earlier writers

    def meets(self, other: ColumnWriter) -> bool:
        """Whether both fill the same column, or ask the same question."""
        return not {*self.columns, *self.digests}.isdisjoint([*other.columns, *other.digests])


class ColumnLock(EpochLock[ColumnWriter]):
    """Holds columns of an output in a `with` block. Entering raises JobError if another process has them."""

    def __init__(
        self,
        store: Store,
        columns: pa.Schema,
        notes: Iterable[pa.Field] = (),
        *,
        renders: bool = False,
        beat_s: float = BEAT_S,
        expiry_s: float = EXPIRY_S,
    ) -> None:
        """notes: columns that are written along with these. renders: as for `DriverLock`."""
        digests = tuple(digest.decode() for one in columns if (digest := column_digest(one)))
        ours = ColumnWriter.here(columns=tuple(columns.names), digests=digests, renders=renders)
        super().__init__(store, ours, beat_s=beat_s, expiry_s=expiry_s)
        self.refused: dict[str, int] = {}  # number of clips without a value for good, by column
        self._columns = pa.schema([*columns, *notes])
        self._num_writers = 0
        self._writers: dict[tuple[str, ...], PartWriter] = {}  # by columns

    def put(self, record: Mapping[str, Any], values: Mapping[str, Any]) -> None:
        """Write values of a clip within seconds. Other columns are unchanged."""
        names = tuple(name for name in self._columns.names if name in values)
        if names not in self._writers:
            self._num_writers += 1
            run = numbered_run(self.epoch, self._num_writers)
            schema = pa.schema([*_OF_CLIP, *(self._columns.field(name) for name in names)])
            self._writers[names] = PartWriter(self._store, SCORES, schema, run=run)
        of_clip = {name: record[name] for name in _OF_CLIP.names}
        self._writers[names].add(None, {**of_clip, **{name: values[name] for name in names}})
        now = time.monotonic()
        if any(writer.due(now) for writer in self._writers.values()):
            self._flush(lambda writer: writer.due(now))

    def flush(self) -> None:
        """Write all pending values. Raises StoreError if another process has the columns now."""
        self._flush(lambda writer: True)
        self._writers.clear()  # a later writer's value of a clip replaces an earlier one

    def _flush(self, is_due: Callable[[PartWriter], bool]) -> None:
        for writer in self._writers.values():
            if is_due(writer):
                writer.flush()
        if self._writers:
            self.check()

    def still_ours(self) -> bool:
        """Whether no other process has had these columns since."""
        later = [epoch for epoch in epochs_of(self._store, COLUMN_LOCKS) if epoch > self.epoch]
        others = (ColumnWriter.read(self._store, epoch) for epoch in later)
        if any(other and other.meets(self._ours) for other in others):
            return False
        holder = ColumnWriter.read(self._store, self.epoch)
        return holder is not None and holder.owner == self._ours.owner

    def _take_next(self) -> bool:
        newest = max(epochs_of(self._store, COLUMN_LOCKS), default=0)
        before = ColumnWriter.read(self._store, newest)
        earlier = [newest, *(before.others if before else ())] if newest else []
        holders = {epoch: ColumnWriter.read(self._store, epoch) for epoch in earlier}
        for epoch, holder in holders.items():
            if holder is None or holder.meets(self._ours):
                self._wait_until_abandoned(epoch)
        parts = parts_in(self._store, SCORES)
        replaced, others = dict[int, Sealed](column_seal(self._store).replaced), list[int]()
        for epoch, holder in holders.items():
            holder = ColumnWriter.read(self._store, epoch)
            if holder and not (holder.ended or holder.meets(self._ours) or holder.is_gone()):
                others.append(epoch)
            elif not (holder and holder.ended):
                replaced[epoch] = sealed_of(part for part in parts if part.epoch == epoch)
        refused = before.refused if before else {}
        self._ours = replace(self._ours, others=tuple(others), replaced=replaced, refused=refused)
        # If columns/ was deleted, the parts still show the last epoch.
        return self._create(1 + max([newest, *(part.epoch for part in parts)]))

    def _write(self, **changed: Any) -> None:
        super()._write(refused={**self._ours.refused, **self.refused}, **changed)

    def _begin(self) -> None:
        super()._begin()
        live = {part.path for part in column_parts(self._store)}
        late = [part.path for part in parts_in(self._store, SCORES) if part.path not in live]
        if late:
            self.check()
            self._store.delete_many(late)

    def _refusal(self, holder: ColumnWriter | None) -> JobError:
        kind = OutputInUse if holder and holder.renders else JobError
        names = holder.columns if holder else self._ours.columns
        are = f"{' and '.join(names)} {'is' if len(names) == 1 else 'are'}"
        return kind(
            f"{self._store.url_of('')}: {are} being filled by {holder or 'another process'}",
            "wait for it to end, and run the same command again",
        )


def check_idle(store: Store) -> None:
    """Raise JobError if a process fills columns of an output now."""
    newest = max(epochs_of(store, COLUMN_LOCKS), default=0)
    before = ColumnWriter.read(store, newest)
    for epoch in (newest, *before.others) if before else ():
        writer = ColumnWriter.read(store, epoch)
        if writer and not writer.is_gone():
            file = store.url_of(epoch_path(epoch, COLUMN_LOCKS))
            raise JobError(
                f"{store.url_of('')}: {' and '.join(writer.columns)} may be being filled by {writer}",
                f"wait for it to end; if its machine is gone, delete {file}",
            )


def refused_clips(store: Store) -> Mapping[str, int]:
    """Return how many clips were refused a value for good, by column, from the last writers."""
    newest = max(epochs_of(store, COLUMN_LOCKS), default=0)
    writer = ColumnWriter.read(store, newest)
    if writer is None:
        return {}
    refused = dict(writer.refused)
    for other in (ColumnWriter.read(store, epoch) for epoch in writer.others):
        if other:
            refused |= {name: num for name, num in other.refused.items() if name in other.columns}
    return refused
