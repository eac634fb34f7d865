"""Plan the shards of a selection, compare the plan with an earlier run's, and write them.

The plan, `.framefleet/export.json` at DEST, is hidden from readers of the dataset, and is written before the
first shard. It decides the shards, so a run that was killed can continue. A shard (a tar, a Parquet file or a
folder) becomes visible when it is finished.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import PurePosixPath
from typing import Any

from pydantic import TypeAdapter

import framefleet
from framefleet.api.errors import JobError, names_text
from framefleet.api.outputs import RECORDS, Output, Store, read_json, recorded_path
from framefleet.pipeline.errors import StoreConflict
from framefleet.plugins.export.choice import ExportChoice
from framefleet.plugins.export.clip_names import folded
from framefleet.plugins.export.selection import Selection, Split

NOTES = ".framefleet"
_PLAN = f"{NOTES}/export.json"
_OTHER = "choose another place, or empty this one"
_DESCRIPTION = TypeAdapter(dict[str, Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedShard:
    name: str  # split and number in the split, e.g. train-000000; shard-000000 without splits
    split: Split | None
    num_rows: int
    num_bytes: int
    sha256: str  # of their row_ids and digests


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportPlan:
    """shards: in order. endings: of the clips' names, e.g. ".mp4"."""

    shards: tuple[PlannedShard, ...]
    endings: frozenset[str]

    @property
    def num_rows(self) -> int:
        return sum(shard.num_rows for shard in self.shards)

    @property
    def num_bytes(self) -> int:
        return sum(shard.num_bytes for shard in self.shards)


def plan_of(selection: Selection) -> ExportPlan:
    """Read the records once, and return the shards to write. Raises JobError if no records are chosen."""
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


def version_to_export(output: Output, place: Store) -> Output:
    """Return the output as it was when the export began, or as it is now for a new export."""
    try:
        then = output.at(read_json(place, _PLAN, _DESCRIPTION, fix=_OTHER).get("parts"))
    except (FileNotFoundError, ValueError):  # a new export, or an invalid file
        return output.now()
    if then is None:
        raise JobError(
            f"{place.url_of('')} has an unfinished export of record parts that are gone since, "
            "e.g. merged by `framefleet compact`",
            _OTHER,
        )
    return then


def claim_place(
    place: Store, choice: ExportChoice, plan: ExportPlan, output: Output, columns: Sequence[str]
) -> None:
    """Claim an empty place for this export, unless it has claimed it before. JobError if another one has.

    columns: of its shards; there may be more once an output has been scored.
    """
    rows = hashlib.sha256("".join(shard.sha256 for shard in plan.shards).encode()).hexdigest()
    ours = choice.description() | {"num_rows": plan.num_rows, "rows": rows, "shard_columns": [*columns]}
    try:
        theirs = read_json(place, _PLAN, _DESCRIPTION, fix=_OTHER)
    except FileNotFoundError:
        if place.list(""):
            raise JobError(f"{place.url_of('')} contains other files", _OTHER) from None
        theirs = ours
        description = ours | {"parts": output.version(), "framefleet": framefleet.__version__}
        content = json.dumps(description, indent=2, ensure_ascii=False)
        try:
            place.create(_PLAN, content.encode() + b"\n")
        except StoreConflict:  # another run was faster
            theirs = read_json(place, _PLAN, _DESCRIPTION, fix=_OTHER)
    theirs = {"shard_columns": [*columns], **theirs}  # older exports do not have this key
    if differing := [name for name, value in ours.items() if theirs.get(name) != value]:
        compared = "; ".join(
            f"{name} {_difference(theirs.get(name), ours[name])}" for name in differing if name != "rows"
        )
        raise JobError(
            f"{place.url_of('')} contains a different export: "
            + (compared or "the output has other clips now"),
            _OTHER,
        )


def check_case(place: Store, names: Iterable[str]) -> None:
    """Raise JobError if the claimed place would store two of these names as one."""
    others = dict[str, str]()
    for name in names:
        other = others.setdefault(folded(name), name)
        if other != name and place.exists(_PLAN.upper()):
            place.delete(_PLAN)
            problem = f"{place.url_of('')} ignores case, so {other!r} and {name!r} would be one file"
            raise JobError(problem, "leave one of them out with --where, or export to another file system")


def _difference(there: Any, here: Any) -> str:
    if isinstance(there, list) and isinstance(here, list):
        return f"differ in {names_text(sorted({*map(str, there)} ^ {*here}))}"
    there, here = ("unset" if value is None else value for value in (there, here))
    return f"is {there} there and {here} here"
