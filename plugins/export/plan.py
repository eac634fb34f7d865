"""In: a selection. Out: how many rows each shard has, and which; held against what another run planned.

A place that an export goes to has `.framefleet/export.json`: hidden from readers of data, and written before
the first shard. Shards follow from it, so a run that was killed is taken up where it was.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import PurePosixPath
from typing import Any

from pydantic import TypeAdapter

import framefleet
from framefleet.pipeline.errors import JobError, StoreConflict
from framefleet.pipeline.outputs.layout import RECORDS, recorded_path
from framefleet.pipeline.outputs.parts.seals import SEALED, Part, is_sealed, live_parts, sealed_of
from framefleet.pipeline.outputs.stores.store import Store, read_json
from framefleet.plugins.export.choice import ExportChoice
from framefleet.plugins.export.selection import Selection, Split

NOTES = ".framefleet"
_PLAN = f"{NOTES}/export.json"
_OTHER = "choose another place, or empty this one"
_KIND = TypeAdapter(dict[str, Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedShard:
    """Its rows, by number, and which: SHA-256 over their row_ids and digests.

    name: the split and the shard's number in it, e.g. train-000000; shard-000000 where split is None.
    """

    name: str
    split: Split | None
    num_rows: int
    num_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportPlan:
    """shards: in their order. endings: of the clips' names, as ".mp4"."""

    shards: tuple[PlannedShard, ...]
    endings: frozenset[str]

    @property
    def num_rows(self) -> int:
        return sum(shard.num_rows for shard in self.shards)

    @property
    def num_bytes(self) -> int:
        return sum(shard.num_bytes for shard in self.shards)


def plan_of(selection: Selection) -> ExportPlan:
    """Read the records once; what a shard is depends on nothing else. Raises JobError if none is chosen."""
    shards, endings = [], set()
    of_split: Counter[Split | None] = Counter()
    for _, pieces in groupby(selection.pieces(), key=lambda piece: piece.shard):
        num_rows, num_bytes, digest = 0, 0, hashlib.sha256()
        for piece in pieces:
            piece.digest(digest)
            rows = piece.rows.select(["row_id", "uri", "path", "bytes"]).to_pylist()
            num_rows, num_bytes = num_rows + len(rows), num_bytes + sum(row["bytes"] for row in rows)
            endings |= {"".join(PurePosixPath(recorded_path(row, RECORDS)).suffixes) for row in rows}
            split = piece.split
        shards.append(
            PlannedShard(
                name=f"{split or 'shard'}-{of_split[split]:06}",
                split=split,
                num_rows=num_rows,
                num_bytes=num_bytes,
                sha256=digest.hexdigest(),
            )
        )
        of_split[split] += 1
    if not shards:
        raise selection.nothing_chosen()
    return ExportPlan(shards=tuple(shards), endings=frozenset(endings))


def parts_to_export(store: Store, place: Store) -> tuple[list[Part], int]:
    """Return the parts of records that there are; of an export that was begun, those that there were then.

    And how many have newer rows.
    """
    parts = live_parts(store)
    try:
        then = SEALED.validate_python(read_json(place, _PLAN, _KIND, fix=_OTHER).get("parts"))
    except (FileNotFoundError, ValueError):  # none was begun, or by an earlier version
        return parts, 0
    exported = [part for part in parts if is_sealed(part, then)]
    if sealed_of(exported) != then:
        raise JobError(
            f"{place.url_of('')} holds an export that was begun with parts of records that are gone since, "
            "e.g. merged by `framefleet compact`",
            _OTHER,
        )
    return exported, len(parts) - len(exported)


def claim_place(place: Store, choice: ExportChoice, plan: ExportPlan, parts: Sequence[Part]) -> None:
    """Make an empty place this export's, unless it is already. Raises JobError for another's."""
    rows = hashlib.sha256("".join(shard.sha256 for shard in plan.shards).encode()).hexdigest()
    ours = choice.description() | {"num_rows": plan.num_rows, "rows": rows}
    try:
        theirs = read_json(place, _PLAN, _KIND, fix=_OTHER)
    except FileNotFoundError:
        if place.list(""):
            raise JobError(f"{place.url_of('')} holds other files", _OTHER) from None
        theirs = ours
        description = ours | {"parts": sealed_of(parts), "framefleet": framefleet.__version__}
        content = json.dumps(description, indent=2, ensure_ascii=False)
        try:
            place.create(_PLAN, content.encode() + b"\n")
        except StoreConflict:  # another run was quicker
            theirs = read_json(place, _PLAN, _KIND, fix=_OTHER)
    if differing := [name for name, value in ours.items() if theirs.get(name) != value]:
        compared = "; ".join(
            f"{name} is {_shown(theirs.get(name))} there and {_shown(ours[name])} here"
            for name in differing
            if name != "rows"
        )
        raise JobError(
            f"{place.url_of('')} holds an export of something else: "
            + (compared or "the output has other clips now"),
            _OTHER,
        )


def _shown(value: Any) -> str:
    return "unset" if value is None else str(value)
