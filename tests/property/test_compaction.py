"""Parts are written, and then merged, by drivers that are killed anywhere: readers see each row once."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from unittest import mock

import fsspec
from greenlet import greenlet
from hypothesis import given, settings, strategies as st

from framefleet.api.outputs import RECORDS, HeldOutput, Output, Store
from framefleet.cluster.driver.lock import DriverLock, Holder
from framefleet.pipeline.outputs.parts.parts import PartWriter
from framefleet.pipeline.outputs.parts.records import RECORD_FIELDS, values_of
from framefleet.pipeline.outputs.parts.seals import gone_parts, new_run, parts_in
from framefleet.plugins.compact import compaction
from framefleet.plugins.compact.compaction import merge_small_parts
from tests.long import examples
from tests.outputs import committed_row_ids, row_ids_of
from tests.rows import record

STEPS = ["go on", "go on", "check", "check slowly", "check slowly", "kill"]
CHANGES = {"write", "create", "delete"}
PARTS = 5  # of each driver


KILLED: list[greenlet] = []  # kept, as one that is collected runs its `finally`


@dataclass(slots=True)
class World:
    """One driver after another, each paused before every change it makes; readers in between."""

    store: Store
    num_rows: int = 0  # that are committed
    driver: greenlet | None = None

    def drive(self) -> None:
        with DriverLock(self.store, beat_s=3600) as lock:
            self.num_rows = sum(map(len, committed_row_ids(self.store)))
            writer = PartWriter(self.store, RECORDS, RECORD_FIELDS, run=new_run(lock.epoch))
            for _ in range(PARTS):
                writer.add(None, values_of(record(self.num_rows, row_indices=(self.num_rows,))))
                writer.flush()
                self.num_rows += 1
        with DriverLock(self.store, beat_s=3600) as lock:
            merge_small_parts(HeldOutput(self.store, lock))

    def go_on(self) -> None:
        """Let the driver make one more change; the next one begins where it ends."""
        if self.driver is None or self.driver.dead:
            self.driver = greenlet(self.drive)
        self.driver.switch()

    def kill(self) -> None:
        if self.driver:
            KILLED.append(self.driver)
        self.driver = None

    def pause(self) -> None:
        """Called before each change."""
        current = greenlet.getcurrent()
        if current is self.driver and current.parent:
            current.parent.switch()

    def check(self) -> None:
        """A reader that comes now sees each row once."""
        tables = Output(self.store).records()
        rows = Counter(row_id for table in tables for row_id in table["row_id"].to_pylist())
        known = {f"{number:032x}" for number in range(self.num_rows)}
        under_way = {f"{self.num_rows:032x}"}  # stored, and the driver does not know it yet
        assert known <= rows.keys() <= known | under_way, rows
        assert set(rows.values()) <= {1}
        counted = Counter(row_id for row_ids in committed_row_ids(self.store) for row_id in row_ids)
        assert counted == rows
        assert gone_parts(self.store) == []

    def list_slowly(self, num_changes: int, listing: Callable[[], list[str]]) -> list[str]:
        """List a folder of which half is read before some changes, and half after."""
        before = listing()
        for _ in range(num_changes):
            self.go_on()
        after = listing()
        middle = before[len(before) // 2] if before else ""
        return [path for path in before if path < middle] + [path for path in after if path >= middle]


@settings(max_examples=examples(60), deadline=None)
@given(steps=st.lists(st.tuples(st.sampled_from(STEPS), st.integers(1, 10)), max_size=40))
def test_each_reader_sees_each_row_once_whoever_is_killed_when(steps: list[tuple[str, int]]) -> None:
    world = World(Store(f"memory://{uuid.uuid4().hex}"))
    ask, listing, delete = Store._ask, Store.list, Store.delete
    slowness = [0]  # changes while records/ is listed

    def paused(store: Store, verb: str, *given: Any, **named: Any) -> Any:
        if verb in CHANGES:
            world.pause()
        return ask(store, verb, *given, **named)

    def listed(store: Store, folder: str) -> list[str]:
        num_changes, slowness[0] = slowness[0], 0
        if folder == RECORDS and num_changes:
            return world.list_slowly(num_changes, lambda: listing(store, folder))
        return listing(store, folder)

    with (
        mock.patch.object(Store, "_ask", paused),
        mock.patch.object(Store, "list", listed),
        mock.patch.object(Store, "delete_many", lambda store, paths: [delete(store, path) for path in paths]),
        mock.patch.object(Holder, "is_gone", lambda holder: True),
        mock.patch.object(compaction, "LARGE_BYTES", 60_000),
    ):
        for step, count in steps:
            slowness[0] = count if step == "check slowly" else 0
            if step == "go on":
                for _ in range(count):
                    world.go_on()
            else:
                (world.kill if step == "kill" else world.check)()
        world.check()
        world.kill()
        with DriverLock(world.store, beat_s=3600):
            there = [row_ids_of(world.store, part.path) for part in parts_in(world.store, RECORDS)]
    rows = Counter(row_id for row_ids in there for row_id in row_ids)
    assert set(rows.values()) <= {1}, "what does not count is swept, for readers of the folder"
    fsspec.filesystem("memory").store.clear()
