"""Records that an audit puts in doubt are taken back: of its kind, in all runs, if no plain call made them.

The kind is noted in `apart/<16 hex>.json`: no clip of it is adopted by a later run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Any

from framefleet.cluster.driver.lock import DriverLock
from framefleet.pipeline.guards.json_text import canonical_json
from framefleet.pipeline.outputs.layout import APART
from framefleet.pipeline.outputs.parts.replace_part import withdraw
from framefleet.pipeline.outputs.stores.store import Store
from framefleet.pipeline.render.audit.verdict import is_doubtful, kind_of_record
from framefleet.pipeline.rows.tables.index import RowIndex


@dataclass(slots=True, kw_only=True)
class TakenBack:
    """num_before: of num_rows, those that had a record before this run. num_bytes: of all their clips.

    num_elsewhere: rows as doubtful that keep their records, as the table does not have them.
    """

    num_rows: int = 0
    num_before: int = 0
    num_bytes: int = 0
    num_elsewhere: int = 0


def take_back(
    store: Store, index: RowIndex, apart: Set[str], lock: DriverLock, *, has_begun: bool
) -> TakenBack:
    """Take back the records of rows of the table that were neither plain calls nor compared.

    apart: paths of the kinds that were found wrong. has_begun: the first pass over the table has.
    """
    found = TakenBack()

    def goes(record: Mapping[str, Any]) -> bool:
        if path_of(kind_of_record(record)) not in apart or not is_doubtful(record["environment"]):
            return False
        is_here = index.is_pending(record["row_id"]) is not None
        found.num_elsewhere += not is_here
        return is_here

    for row_ids, num_bytes in withdraw(store, goes, lock):
        found.num_rows += len(row_ids)
        found.num_bytes += num_bytes
        if has_begun:
            found.num_before += index.render_again(row_ids)
    if found.num_rows:
        lock.seal()  # parts of earlier runs are gone, which is no damage
    return found


def finish_taking_back(store: Store, index: RowIndex, lock: DriverLock) -> None:
    """Finish what a killed driver left undone, before records are read."""
    if apart := noted_apart(store):
        take_back(store, index, apart, lock, has_begun=False)


def note_apart(store: Store, kind: str) -> None:
    """Note, for later drivers, that rows of this kind were rendered wrong in a batch."""
    store.create(path_of(kind), canonical_json({"kind": kind}).encode())


def noted_apart(store: Store) -> set[str]:
    """Return the paths of the kinds that were noted."""
    return set(store.list(APART))


def path_of(kind: str) -> str:
    return f"{APART}/{hashlib.sha256(kind.encode()).hexdigest()[:16]}.json"
