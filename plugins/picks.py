"""Stars and notes that people give to clips, through several servers at once.

    stars/<server>.jsonl   what one server was asked to keep, a line for each clip; written by it alone
    stars.jsonl            all of them together, for people and other programs; made again after every change

No server writes another's file, so that none loses a change, whatever the store can do. Readers merge the
files: of a clip the newest line counts. What people wrote is in stars.jsonl alone; a line of theirs may have
a row_id and no stars.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Iterable
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from framefleet.pipeline.outputs.layout import PICK_FILES, PICKS
from framefleet.pipeline.outputs.parts.records import ROW_ID
from framefleet.pipeline.outputs.stores.store import Store, read_as

_MAX_BYTES = 1 << 28


class PickChange(BaseModel):
    """What is kept of one clip, and a change of it."""

    model_config = ConfigDict(strict=True)

    row_id: Annotated[str, Field(pattern=ROW_ID)]
    stars: Annotated[int, Field(ge=0, le=5)] = 0
    note: Annotated[str, Field(max_length=10_000)] = ""


class KeptPick(PickChange):
    """at: of two the larger one counts; nanoseconds, but never below what its server had seen of the clip."""

    at: Annotated[int, Field(ge=0)] = 0

    @property
    def is_pick(self) -> bool:
        """Whether the clip is chosen; else its pick was taken back."""
        return bool(self.stars or self.note) or "stars" not in self.model_fields_set


_KEPT = TypeAdapter(KeptPick)


def read_picks(store: Store) -> dict[str, KeptPick]:
    """Return the picks of an output by row_id. Raises JobError for a line that is none."""
    return {row_id: pick for row_id, pick in _merged(store).items() if pick.is_pick}


def gathered_picks(store: Store) -> bytes:
    """Return the picks of an output as lines of JSON. Raises as `read_picks` does."""
    return _lines(read_picks(store).values())


def _merged(store: Store) -> dict[str, KeptPick]:
    """Return what counts of each clip, also that its pick was taken back."""
    latest: dict[str, KeptPick] = {}
    # The last: who corrects a line of it by hand leaves its `at` as it is.
    for path in (*(path for path in store.list(PICK_FILES) if path.endswith(".jsonl")), PICKS):
        try:
            lines = store.read(path, _MAX_BYTES).splitlines()
        except FileNotFoundError:
            continue
        for pick in (read_as(_KEPT, line, store.url_of(path)) for line in lines if line.strip()):
            if pick.row_id not in latest or latest[pick.row_id].at <= pick.at:
                latest[pick.row_id] = pick
    return latest


class PickKeeper:
    """Keeps picks for one server; for several threads."""

    def __init__(self, store: Store) -> None:
        self._store, self._lock = store, threading.Lock()
        self._path = f"{PICK_FILES}/{uuid.uuid4().hex}.jsonl"
        self._own: dict[str, KeptPick] = {}
        self._seen: dict[str, int] = {}  # `at` of each clip, as of the last look

    def all(self) -> dict[str, KeptPick]:
        """Do what `read_picks` does."""
        picks = _merged(self._store)
        self._seen = {row_id: pick.at for row_id, pick in picks.items()}
        return {row_id: pick for row_id, pick in picks.items() if pick.is_pick}

    def change(self, pick: PickChange) -> None:
        """Keep what is said of one clip, in place of what was; nothing of one without stars and note."""
        with self._lock:
            at = max(time.time_ns(), self._seen.get(pick.row_id, 0) + 1)
            dated = KeptPick(**pick.model_dump() | {"at": at})
            # Stored, or not kept at all: the caller learns which.
            self._store.write(self._path, _lines({**self._own, pick.row_id: dated}.values()))
            self._own[pick.row_id] = dated
            # Until stars.jsonl has what is there: another server's change may come meanwhile. That one's
            # server writes it, too, after its change: so the last to write has seen all.
            before, now = None, self.all()
            while now != before:
                self._store.write(PICKS, _lines(now.values()))
                before, now = now, self.all()


def _lines(picks: Iterable[KeptPick]) -> bytes:
    return "".join(f"{json.dumps(pick.model_dump(exclude_unset=True))}\n" for pick in picks).encode()
