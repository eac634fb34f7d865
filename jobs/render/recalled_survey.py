"""rows/_survey.json: what the first pass over a table found, so that a run that goes on need not repeat it.

A hundred million rows take half an hour to check, while every GPU waits. The pass is left out where all that
decides its result is as it was: the table's files by what their store says of them, the job, the model, this
code and its libraries. Rows that name images or recipes depend on more than that, so they are checked
again; so are sweeps. Every row is still checked before it is rendered.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import pyarrow as pa
from pydantic import Field, TypeAdapter

from framefleet.jobs.render.claim import deciding_values
from framefleet.jobs.render.resolve import ResolvedJob
from framefleet.jobs.render.row_parts import sound_parts
from framefleet.jobs.render.survey import Survey
from framefleet.jobs.show.watch import Checked, Watch
from framefleet.pipeline.errors import JobError, TableError
from framefleet.pipeline.guards.json_text import canonical_json
from framefleet.pipeline.model.environment import source_fingerprint
from framefleet.pipeline.model.specs.signature import PLACES
from framefleet.pipeline.outputs.layout import ROWS
from framefleet.pipeline.outputs.parts.parts import read_parts
from framefleet.pipeline.outputs.parts.records import ROW_FIELDS
from framefleet.pipeline.outputs.stores.store import not_ours, read_json
from framefleet.pipeline.request import Request, inputs_in
from framefleet.pipeline.rows.lane_key import lane_named
from framefleet.pipeline.rows.tables.index import RowIndex
from framefleet.pipeline.rows.tables.request_checks import check_again
from framefleet.pipeline.rows.tables.row_ids import ids_of, positions_of
from framefleet.pipeline.rows.tables.table import MAX_ROWS, Table

_SURVEY = f"{ROWS}/_survey.json"  # hidden from readers of the folder, as row_parts.py's own notes
_MAX_SHAPES = 1000  # with an example of each; a table may have a size for each row
_WRITE_AGAIN = f"delete {ROWS}/, which is written again from the table"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """What a `Survey` says of a table. of: all that decides it, as a SHA-256."""

    of: str
    num_rows: Annotated[int, Field(le=MAX_ROWS)]
    num_invalid: int
    shapes: dict[str, int]
    examples: dict[str, Request]


_SEEN = TypeAdapter(_Seen)


def recall_survey(resolved: ResolvedJob, index: RowIndex, watch: Watch) -> Survey | None:
    """Fill `index` from rows/, and return what the survey of an earlier run found; None if it may not hold.

    Raises JobError where rows/ is damaged.
    """
    parts = sound_parts(resolved.store)
    key = _key(resolved, parts)
    try:
        seen = read_json(resolved.store, _SURVEY, _SEEN) if key else None
        if seen is None or seen.of != key:
            return None
        recipe = resolved.recipes[resolved.job.recipe]
        specs = {name: model.spec for name, model in resolved.models.items()}
        checked = {shape: check_again(one, specs[one.model], recipe) for shape, one in seen.examples.items()}
    except (FileNotFoundError, JobError, KeyError, TableError):
        return None
    _fill(index, resolved, sorted(parts), watch, seen)
    return Survey(
        num_rows=seen.num_rows,
        num_invalid=seen.num_invalid,
        shapes=Counter(seen.shapes),
        examples=checked,
    )


def _fill(index: RowIndex, resolved: ResolvedJob, parts: Iterable[str], watch: Watch, seen: _Seen) -> None:
    end = num_valid = 0
    store, rows = resolved.store, resolved.rows
    named = [] if rows.column is None else [pa.field(rows.carried.names[rows.column], pa.string())]
    for part in read_parts(store, parts, pa.schema([*ROW_FIELDS, *named])):
        positions = positions_of(part["row_index"])
        if (np.diff(positions, prepend=end - 1) < 1).any():
            raise not_ours(store.url_of(ROWS), f"a row after row {end - 1} is not in its place", _WRITE_AGAIN)
        first, end = end, int(positions.max(initial=end - 1)) + 1
        if end > seen.num_rows:
            break
        cells = part[named[0].name].to_pylist() if named else [None] * len(part)
        # Rows name no recipes here, see `_key`.
        lanes = {cell: lane_named(str(rows.model_of(cell)), resolved.job.recipe) for cell in set(cells)}
        index.add_ids(positions, ids_of(part["row_id"]), [lanes[cell] for cell in cells])
        is_left_out = np.ones(end - first, np.bool_)
        is_left_out[positions - first] = False
        index.leave_out(np.flatnonzero(is_left_out) + first)
        num_valid += len(part)
        watch.show(Checked(num_rows=end))
    if end > seen.num_rows or num_valid != seen.num_rows - seen.num_invalid:
        raise not_ours(store.url_of(ROWS), f"the table has {seen.num_rows:,} rows", _WRITE_AGAIN)
    index.leave_out(range(end, seen.num_rows))


def remember_survey(resolved: ResolvedJob, survey: Survey) -> None:
    """Write down what was found, if it can hold in a later run. Call after rows/ was written."""
    key = _key(resolved, sound_parts(resolved.store))
    if key is None or len(survey.shapes) > _MAX_SHAPES:
        return
    seen = _Seen(
        of=key,
        num_rows=survey.num_rows,
        num_invalid=survey.num_invalid,
        shapes=dict(survey.shapes),
        examples=survey.examples,
    )
    resolved.store.write(_SURVEY, canonical_json(_SEEN.dump_python(seen)).encode())


def _key(resolved: ResolvedJob, parts: dict[str, str]) -> str | None:
    """Return all that decides what a survey finds; None where something that does is not known.

    parts: of rows/, with the digest of each.
    """
    table, plans = resolved.table, [model.plan for model in resolved.models.values()]
    files = table.stamps() if isinstance(table, Table) else None
    readers = [reader for plan in plans for reader in plan.readers]
    names_more = any(reader.kind in PLACES or reader.target == "recipe" for reader in readers)
    if (
        not parts
        or files is None
        or names_more
        or any(inputs_in(v) for plan in plans for v in plan.base.values())
    ):
        return None
    recipes = {name: recipe.digest for name, recipe in resolved.recipes.items()}
    values = [source_fingerprint(), deciding_values(resolved), recipes, files, parts]
    return hashlib.sha256(canonical_json(values).encode()).hexdigest()
