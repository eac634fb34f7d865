"""Rows taken out of records/, so that they are rendered again; a kill on the way changes nothing of that.

What is to go is written down first. Whoever holds the output next finds it, and finishes. A part is replaced
by one that says so, and deleted when that is stored and the lock is still ours: so a driver that was frozen
in between deletes nothing but what the next one has to delete too.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import StringConstraints, TypeAdapter

from framefleet.pipeline.guards.json_text import canonical_json
from framefleet.pipeline.guards.strict import Strict
from framefleet.pipeline.outputs.parts.part_file import REPLACES, metadata_of, read_part
from framefleet.pipeline.outputs.parts.part_names import RUN, Part, new_run
from framefleet.pipeline.outputs.parts.parts import row_ids_of
from framefleet.pipeline.outputs.parts.pending import disown, intent_path
from framefleet.pipeline.outputs.parts.records import RECORDS, ROW_ID
from framefleet.pipeline.outputs.parts.replace_part import replace_by
from framefleet.pipeline.outputs.parts.seals import Hold, live_parts
from framefleet.pipeline.outputs.stores.json_file import read_json
from framefleet.pipeline.outputs.stores.store import Store

WITHDRAWN = "withdrawn.json"


class _Withdrawal(Strict):
    """run: whose parts name the rows, or other parts of its epoch."""

    run: Annotated[str, StringConstraints(pattern="^[A-Za-z0-9-]+$")]
    row_ids: list[Annotated[str, StringConstraints(pattern=ROW_ID)]]

    def names(self, part: Part) -> bool:
        return part.run == self.run or 0 < part.epoch == self._epoch

    def may_have_replaced(self, part: Part) -> bool:
        return self.names(part) or part.epoch > self._epoch

    @property
    def _epoch(self) -> int:
        run = RUN.fullmatch(self.run)
        return int(run["epoch"]) if run else 0


def note_withdrawal(store: Store, row_ids: Collection[str], *, run: str, hold: Hold) -> None:
    """Write down that no part of a run is to name these rows, nor their clips be adopted.

    `finish_withdrawal` does it, sooner or later. Only for who holds the output.
    """
    withdrawal = _Withdrawal(run=run, row_ids=sorted(row_ids))
    hold.check()
    store.write(WITHDRAWN, canonical_json(withdrawal.model_dump()).encode())


def finish_withdrawal(store: Store, hold: Hold) -> bool:
    """Do what was written down, and tell whether there was something.

    Also what who held the output before left undone: to be called before records are read.
    """
    try:
        withdrawal = read_json(store, WITHDRAWN, TypeAdapter(_Withdrawal), fix=_fix(store))
    except FileNotFoundError:
        return False
    _finish(store, withdrawal, hold)
    return True


def _fix(store: Store) -> str:
    """Return what helps where nothing says any more which rows it named: they are of the newest driver."""
    parts = live_parts(store)
    newest = f"{parts[-1].epoch:06d}" if parts and parts[-1].epoch else parts[-1].run if parts else ""
    also = f" and {RECORDS}/part-{newest}-*, whose rows are then rendered again" if newest else ""
    return f"delete it{also}; or choose another output"


def _finish(store: Store, withdrawal: _Withdrawal, hold: Hold) -> None:
    gone, run = pa.array(withdrawal.row_ids, pa.string()), new_run(hold.epoch)
    parts = [part for part in live_parts(store) if withdrawal.may_have_replaced(part)]
    named = [part for part in parts if withdrawal.names(part)]
    named = [part for part in named if not set(withdrawal.row_ids).isdisjoint(row_ids_of(store, part.path))]
    replaced = {metadata_of(store, part.path).get(REPLACES) for part in parts} if named else set()
    for number, part in enumerate(named, start=1):
        table = read_part(store, part.path, None)
        is_gone = pc.is_in(table["row_id"], gone)
        disown(store, _intents(table.filter(is_gone)))
        left, is_written = table.filter(pc.invert(is_gone)), part.path in replaced
        replace_by(store, part.path, left, run=run, number=number, hold=hold, is_written=is_written)
    hold.check()
    store.delete(WITHDRAWN)


def _intents(table: pa.Table) -> list[str]:
    """Return where the intents of these records' clips were."""
    extras = "extra_outputs_sha256"
    names = ["row_id", "media_sha256", *([extras] if extras in table.column_names else [])]
    rows = table.select(names).to_pylist()
    return [intent_path(row["row_id"], row["media_sha256"], row.get(extras)) for row in rows]
