"""Rows taken out of records/, so that they are rendered again; a kill on the way changes nothing of that.

What is to go is written down first. Whoever holds the output next finds it, and finishes.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated

from pydantic import StringConstraints, TypeAdapter

from framefleet.pipeline.guards.json_text import canonical_json
from framefleet.pipeline.guards.strict import Strict
from framefleet.pipeline.outputs.json_file import read_json
from framefleet.pipeline.outputs.parts import drop_rows, parts_of_run
from framefleet.pipeline.outputs.records import RECORDS, ROW_ID
from framefleet.pipeline.outputs.store import Store

WITHDRAWN = "withdrawn.json"


class _Withdrawal(Strict):
    """run: whose parts name the rows."""

    run: Annotated[str, StringConstraints(pattern="^[A-Za-z0-9-]+$")]
    row_ids: list[Annotated[str, StringConstraints(pattern=ROW_ID)]]


def withdraw(store: Store, row_ids: Collection[str], *, run: str) -> None:
    """Let no part of a run name these rows. Only for who holds the output's lock."""
    withdrawal = _Withdrawal(run=run, row_ids=sorted(row_ids))
    store.write(WITHDRAWN, canonical_json(withdrawal.model_dump()).encode())
    _finish(store, withdrawal)


def finish_withdrawal(store: Store) -> None:
    """Do what was left undone by who held the output before; nothing, as a rule. Before records are read."""
    try:
        withdrawal = read_json(store, WITHDRAWN, TypeAdapter(_Withdrawal), fix=_fix(store))
    except FileNotFoundError:
        return
    _finish(store, withdrawal)


def _fix(store: Store) -> str:
    """Return what helps where nothing says any more which rows it named: they are of the newest run."""
    newest = max(store.list(RECORDS), default="").rpartition("-")[0]
    also = f" and {newest}-*, whose rows are then rendered again" if newest else ""
    return f"delete it{also}; or choose another output"


def _finish(store: Store, withdrawal: _Withdrawal) -> None:
    for path in parts_of_run(store, RECORDS, run=withdrawal.run):
        drop_rows(store, path, withdrawal.row_ids)
    store.delete(WITHDRAWN)
