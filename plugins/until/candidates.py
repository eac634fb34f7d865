"""Find a job's groups, the rows with new seeds that they ask for, and the outcomes of these in records.

The order of a group: all its rows of the table with their own seeds, then all with the next seeds, and so on.
Rows that are accepted together have one place in it.
"""

from __future__ import annotations

import math
import tempfile
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import chain, count, islice, product
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

from framefleet.api.clips import Request
from framefleet.api.commands import Watch
from framefleet.api.errors import JobError, TableError, count_text, shown
from framefleet.api.jobs import Job, store_of_job
from framefleet.api.outputs import FAILURES, ROWS, check_where, columns_in, rows_where
from framefleet.api.tables import table_source
from framefleet.api.texts import parse_json
from framefleet.jobs.render.resolve import resolve_job
from framefleet.jobs.render.survey import LeftOut, Survey, check_valid, say_forgotten, write_left_out
from framefleet.pipeline.outputs.columns import REFUSED
from framefleet.pipeline.outputs.layout import CHOSEN
from framefleet.pipeline.outputs.parts.record_tables import (
    record_schema_of,
    record_tables,
    with_nulls,
)
from framefleet.pipeline.outputs.parts.seals import (
    Part,
    column_parts,
    epochs_of,
    live_parts,
    new_run,
    parts_in,
)
from framefleet.pipeline.outputs.row_states import added_in, forgotten_rows, row_ids_in
from framefleet.pipeline.request import MAX_SEED
from framefleet.pipeline.rows.tables.column_checks import argument_meant
from framefleet.pipeline.rows.tables.rows import InvalidRow
from framefleet.pipeline.rows.tables.table import Table, open_table
from framefleet.pipeline.rows.tables.table_rows import IdentifiedRow
from framefleet.plugins.columns.column_lock import ColumnLock
from framefleet.plugins.until import acceptance
from framefleet.plugins.until.marks import MARKS, write_marks
from framefleet.plugins.until.names import UNTIL
from framefleet.plugins.until.section import UntilSection

# All records are read again for at most a twentieth of the time, or once a minute.
_READING_SHARE, _MOST_PAUSE_S = 0.05, 60.0
_MODEL = ("model", "model_name")  # names for a row's model in `per`


def _key_of(cell: object, keys: Collection[str]) -> str | None:
    """Return the key that matches a cell, e.g. "5" for 5.0 and "true" for True, or None."""
    if str(cell) in keys:
        return str(cell)
    for key in keys if not isinstance(cell, str) else ():
        with suppress(ValueError):
            value = parse_json(key)
            if value == cell and isinstance(value, bool) == isinstance(cell, bool):
                return key
    return None


Together: TypeAlias = tuple[int, ...]  # places of the table's rows, usually one
_Part: TypeAlias = tuple[str, ...]  # a row's values of the columns of `together`, e.g. its camera


class SeedRow(NamedTuple):
    row_id: bytes
    place: int  # of the table's row, among the valid ones
    seed: int


class Candidates:
    """The groups of a job, and the rows that they have asked for. Keeps the job's table in memory."""

    def __init__(
        self,
        job: Job,
        watch: Watch,
        table: str | None = None,
        added: str | None = None,
        *,
        heed: Callable[[], None] = lambda: None,
    ) -> None:
        """table: replaces the job's. added: a file with rows after the others. heed: as in `More`.

        Raises UserError for invalid groups.
        """
        self.section: UntilSection = getattr(job, UNTIL)
        if "seed" in job.overrides:
            raise JobError(
                f"overrides.seed is {job.overrides['seed']}, but `until` renders rows with new seeds",
                "use `defaults: {seed: ...}` for the first seed",
            )
        self._job, self._watch, self._has_own_table = job, watch, table is None
        self._store = store_of_job(job)
        self._added, self._forgotten = added_in(self._store), forgotten_rows(self._store)
        self._resolved = resolve_job(job, watch, table)
        try:
            if added and isinstance(self._resolved.table, Table):
                joined = self._resolved.table.joined([open_table(added, {})])
                self._resolved = replace(self._resolved, table=joined)
            self._together = self._together_columns()
            self._check_columns()
            self.survey = Survey()  # of the table
            self._rows: list[IdentifiedRow] = []
            self._left_out: list[LeftOut] = []
            self.groups, self._seeds = self._grouped(self._read_table(heed))
        except BaseException:
            self.close()
            raise
        self._folder = f"{CHOSEN}/{uuid.uuid4().hex[:16]}"  # for the rows that this run asks for
        self._num_files = 0
        self._written = set[bytes]()  # rows that this run has asked for
        self._places: dict[bytes, tuple[int, int]] = {}  # group and place of rows asked for
        self._asked: list[list[Sequence[bytes]]] = [[] for _ in self.groups]  # these rows, by group and place
        self._outcomes: dict[bytes, int] = {}  # of rows, whether asked for or not
        self._earlier = {part.path for part in parts_in(self._store, FAILURES)}  # rows that are tried again
        self._seen = set(self._earlier)
        self._scores = set[str]()  # parts of scores seen so far
        self._next = 0.0  # when all records may be read again

    def close(self) -> None:
        self._resolved.close()

    # -- Groups --

    def _together_columns(self) -> Sequence[str]:
        if self.section.together is not None:
            return self.section.together
        source, _ = table_source(self._job.table or "")
        return source.together if source else ()

    def _check_columns(self) -> None:
        resolved, section = self._resolved, self.section
        columns = resolved.argument_names | {*_MODEL}
        columns |= {*resolved.rows.carried.schema(resolved.table.schema).names}
        for key, names in (("per", section.per), ("share", section.share), ("together", self._together)):
            for name in names:
                if name == "seed":
                    raise JobError(f"until.{key} has 'seed', which differs between clips", "leave it out")
                if name not in columns:
                    new = resolved.rows.carried.names.get(name)
                    fix = f"use {new!r}, as the table's column {name!r} is stored under this name"
                    fix = fix if new else argument_meant(name, columns)
                    raise JobError(f"until.{key}: rows have no {name!r}", fix)
        records = resolved.record_columns()
        records = pa.schema([field for field in records if field.name not in MARKS.names])
        check_where(records, section.where, place="until.where", source="it to `scores:` or `judge:`")
        self._judged = pa.schema([records.field(name) for name in columns_in(section.where, records)])

    def _read_table(self, heed: Callable[[], None]) -> dict[tuple[str, ...], list[Together]]:
        """Read the table; return the places of its rows by their values of `per` and `share`."""
        resolved, survey = self._resolved, self.survey
        names = [*self.section.per, *self.section.share, *self._together]
        own = {*names} & {*resolved.rows.carried.names.values()}
        is_known = own.issuperset(names)  # also of rows that cannot be rendered
        # By stratum: the places, by the number of the row among those with the same part, and by part.
        by_stratum: dict[tuple[str, ...], dict[int, dict[_Part, int]]] = {}
        num_of_part = Counter[tuple[tuple[str, ...] | None, _Part]]()  # in a stratum
        refused = defaultdict[tuple[tuple[str, ...], int], set[_Part]](set)  # by stratum and that number
        without_seed: dict[bytes, tuple[int, tuple[str, ...]]] = {}
        recorded = self._recorded() if self._forgotten else set()
        batches, valid = list[pa.RecordBatch](), list[int]()
        for first, batch in resolved.table.batches():
            rows, carried = list(resolved.rows.read(first, batch)), resolved.rows.carried.of(batch)
            survey.add(rows)
            heed()
            for row in rows:
                cells = {name: carried.column(name)[row.index - first].as_py() for name in own}
                if isinstance(row, IdentifiedRow):
                    request = row.request()
                    cells = {**cells, **request.arguments, **dict.fromkeys(_MODEL, row.model)}
                part = tuple(str(cells.get(name)) for name in self._together)
                stratum = None
                if isinstance(row, IdentifiedRow) or is_known:
                    with suppress(TableError):  # raised below for a row that can be rendered
                        stratum = self._stratum(row, cells)
                number = num_of_part[stratum, part]
                num_of_part[stratum, part] += 1
                is_forgotten = isinstance(row, IdentifiedRow) and row.row_id in self._forgotten
                if is_forgotten and recorded.isdisjoint(self._with_later_seeds(request)):
                    survey.num_forgotten += 1
                    continue
                if not isinstance(row, IdentifiedRow):
                    if stratum is not None:
                        refused[stratum, number].add(part)
                    if self._job.on_invalid == "skip":
                        slice_of_row = batch.slice(row.index - first, 1)
                        places = resolved.rows.carried.places
                        self._left_out.append(LeftOut.of(row, slice_of_row, places))
                    continue
                values = self._stratum(row, cells)
                bare = self._row_id(replace(request, seed=0))
                other, theirs = without_seed.setdefault(bare, (row.index, values))
                if theirs != values:
                    raise TableError(
                        f"rows {other} and {row.index} are in two groups of `until`, but would have the same "
                        "clips, as no argument differs",
                        f"put {' and '.join(names)} into the prompt, or leave it out of `until`",
                    )
                by_stratum.setdefault(values, {}).setdefault(number, {})[part] = len(self._rows)
                self._rows.append(row)
                valid.append(row.index)
            batches.append(batch.select(resolved.table.schema.names))
        resolved.finder.prefetch(())  # frees the files that it kept for the next rows
        self._table = pa.Table.from_batches(batches).take(pa.array(valid, pa.int64()))
        say_forgotten(survey.num_forgotten, self._watch)
        survey.find_places(resolved.table)
        check_valid(survey, resolved.table, on_invalid=self._job.on_invalid, verb="rendered")
        if not by_stratum:
            raise TableError(
                f"table {resolved.table.location}: all its rows were forgotten", "add other rows"
            )
        left_out = refused if is_known or self._job.on_invalid != "skip" else None
        sets = {values: self._sets(values, by_number, left_out) for values, by_number in by_stratum.items()}
        if not any(sets.values()):
            raise TableError(
                f"until.together: every group of table {resolved.table.location} lacks a row by its "
                f"{' and '.join(self._together)}, as rows are left out",
                "correct these rows, add others, or leave out `together`",
            )
        return {values: of_stratum for values, of_stratum in sets.items() if of_stratum}

    def _stratum(self, row: IdentifiedRow | InvalidRow, cells: Mapping[str, Any]) -> tuple[str, ...]:
        """Return a row's values of `per` and `share`. Raises TableError for one without a share."""
        values = tuple(str(cells.get(name)) for name in self.section.per)
        for column, shares in self.section.share.items():
            cell = cells.get(column)
            value = _key_of(cell, shares)
            if value is None:
                raise TableError(
                    f"row {row.index}: {column} is {shown(cell)}, but until.share.{column} lacks it",
                    f"use one of {', '.join(shares)}, or add its share",
                )
            values = (*values, value)
        return values

    def _recorded(self) -> set[bytes]:
        tables = row_ids_in(self._store, live_parts(self._store))
        row_ids = {row_id for table in tables for row_id in table["row_id"].to_pylist()}
        return {*map(bytes.fromhex, row_ids - self._forgotten)}

    def _with_later_seeds(self, request: Request) -> Iterator[bytes]:
        """Yield the row_ids of a row with later seeds. If one has a record, a forgotten row stays here."""
        for number in range(1, self.section.at_most):
            yield self._row_id(replace(request, seed=(request.seed + number) % (MAX_SEED + 1)))

    def _sets(
        self,
        values: tuple[str, ...],
        by_number: Mapping[int, Mapping[_Part, int]],
        refused: Mapping[tuple[tuple[str, ...], int], Collection[_Part]] | None,
    ) -> list[Together]:
        """Return the rows of a stratum that are accepted together. values: of its columns.

        refused: parts whose rows are left out. Raises TableError where one lacks a part, unless rows are left
        out.
        """
        parts = dict.fromkeys(part for places in by_number.values() for part in places)
        whole = [
            tuple(places.values())
            for number, places in by_number.items()
            if places.keys() == {*parts, *(refused or {}).get((values, number), ())}
        ]
        few = (
            places
            for number, places in by_number.items()
            if len(places) < len(parts) and refused is not None and (values, number) not in refused
        )
        if not self._forgotten and (lacking := next(few, None)) is not None:
            missing = next(part for part in parts if part not in lacking)
            row = self._rows[next(iter(lacking.values()))].index
            raise TableError(
                f"until.together: row {row} has no other row with {', '.join(self._together)} = "
                f"{', '.join(missing)} in its group ({', '.join(values) or 'all rows'})",
                "add that row, or leave out `together` or columns of `per`",
            )
        return whole

    def list_left_out(self) -> None:
        """List rows of the table that cannot be rendered under invalid/, once."""
        if self._left_out:
            run = new_run(max(epochs_of(self._store), default=0))
            write_left_out(self._resolved, self._left_out, run=run, replaces=True)
            self._left_out = []

    def _grouped(
        self, by_stratum: Mapping[tuple[str, ...], list[Together]]
    ) -> tuple[list[acceptance.Group], list[Iterator[list[SeedRow]]]]:
        """Return the groups, also split by shares, and the seeds of each."""
        section, groups, seeds = self.section, list[acceptance.Group](), list[Iterator[list[SeedRow]]]()
        num_per = len(section.per)
        classes = {
            values: math.prod(
                shares[value] for shares, value in zip(section.share.values(), values, strict=True)
            )
            for values in product(*section.share.values())
        }
        quotas = acceptance.Quotas(classes)
        for values in dict.fromkeys(values[:num_per] for values in by_stratum):
            for own, wanted in quotas.split(section.accepted).items():
                names = dict(zip([*section.per, *section.share], (*values, *own), strict=True))
                if not wanted:
                    continue
                if (*values, *own) not in by_stratum:
                    group = ", ".join(f"{name}={value}" for name, value in names.items())
                    raise JobError(
                        f"until.share: {wanted} of {count_text(section.accepted, 'accepted clip')} must have "
                        f"{group}, but no row has it",
                        "add such rows, leave columns out of `until.per`, or change the shares",
                    )
                at_most = max(wanted, section.at_most * wanted // section.accepted)
                groups.append(acceptance.Group(values=names, wanted=wanted, at_most=at_most))
                seeds.append(self._seeds_of(by_stratum[(*values, *own)]))
        return groups, seeds

    def _row_id(self, request: Request) -> bytes:
        return bytes.fromhex(self._resolved.models[request.model].identity(request))

    def _seeds_of(self, sets: Sequence[Together]) -> Iterator[list[SeedRow]]:
        """Yield the rows of a group in order, each once; rows that are accepted together come as one list."""
        seen = {bytes.fromhex(row_id) for row_id in self._forgotten}
        for number in count():
            for places in sets:
                requests = [self._rows[place].request() for place in places]
                seed = (requests[0].seed + number) % (MAX_SEED + 1)
                row_ids = [self._row_id(replace(request, seed=seed)) for request in requests]
                if seen.isdisjoint(row_ids):
                    seen.update(row_ids)
                    rows = zip(row_ids, places, strict=True)
                    yield [SeedRow(row_id, place, seed) for row_id, place in rows]

    # -- What records say --

    def read(self, *, anew: bool = False) -> None:
        """Read new parts of records and failures. anew: read all parts, as audits may have replaced some.

        It also reads all parts if there are new scores and some clips were not judged.
        """
        began, scores = time.monotonic(), {part.path for part in column_parts(self._store)}
        are_new = bool(scores - self._scores)
        is_open = are_new and any(acceptance.UNJUDGED in group.outcomes for group in self.groups)
        if is_all := anew or (is_open and began >= self._next):
            self._seen = set(self._earlier)
            self._outcomes |= dict.fromkeys(self._places, acceptance.UNRENDERED)
            for group in self.groups:
                group.outcomes[:] = bytes(len(group.outcomes))
        if is_all or not is_open:  # else they are read later, since that takes long
            self._scores = scores
        changed = set[bytes]()
        records, failures = (
            [part for part in parts if part.path not in self._seen]
            for parts in (live_parts(self._store), parts_in(self._store, FAILURES))
        )
        self._seen |= {part.path for part in (*records, *failures)}
        for table in row_ids_in(self._store, failures):
            for row_id in table["row_id"].to_pylist():
                key = bytes.fromhex(row_id)
                if self._outcomes.get(key, acceptance.UNRENDERED) == acceptance.UNRENDERED:
                    self._outcomes[key] = acceptance.REJECTED
                    changed.add(key)
        for row_id, outcome in self._judged_rows(records) if records else ():
            self._outcomes[key := bytes.fromhex(row_id)] = outcome
            changed.add(key)
        for at, place in {self._places[key] for key in changed if key in self._places}:
            self.groups[at].outcomes[place] = self._outcome_of(self._asked[at][place])
        if is_all:
            ended = time.monotonic()
            self._next = ended + min(_MOST_PAUSE_S, (ended - began) / _READING_SHARE)

    def _outcome_of(self, row_ids: Sequence[bytes]) -> int:
        return acceptance.outcome_of(
            [self._outcomes.get(row_id, acceptance.UNRENDERED) for row_id in row_ids]
        )

    def _judged_rows(self, parts: Sequence[Part]) -> Iterator[tuple[str, int]]:
        """Yield the rows of parts of records, each with its outcome."""
        where, there = self.section.where, record_schema_of(self._store, parts)
        refused = {one: name for one in self._judged.names if (name := REFUSED.format(one)) in there.names}
        names = ["row_id", *(name for name in self._judged.names if name in there.names), *refused.values()]
        # Once a judge has refused a value, for good or in this run, it will not come.
        may_come = [
            f"{_quoted(name)} IS NULL"
            + (f" AND coalesce({_quoted(refused[name])}, '') = ''" if name in refused else "")
            for name in self._judged.names
        ]
        is_open = f"({where}\n) IS NULL AND ({' OR '.join(may_come) or 'true'})"
        for table in record_tables(self._store, list(dict.fromkeys(names)), parts):
            table = with_nulls(table, self._judged)  # a run may lack a score
            outcomes = dict.fromkeys(table["row_id"].to_pylist(), acceptance.REJECTED)
            for condition, outcome in ((where, acceptance.PASSED), (is_open, acceptance.UNJUDGED)):
                (rows,) = rows_where(iter([table]), condition)
                outcomes |= dict.fromkeys(rows["row_id"].to_pylist(), outcome)
            yield from outcomes.items()

    # -- Rows asked for --

    def resume(self) -> list[SeedRow]:
        """Ask again for the rows of earlier runs, read their records, and return these rows."""
        for table in row_ids_in(self._store, parts_in(self._store, ROWS)):
            self._outcomes |= {
                bytes.fromhex(row_id): acceptance.UNRENDERED for row_id in table["row_id"].to_pylist()
            }
        self.read()
        rows = []
        for at, group in enumerate(self.groups):
            while group.room > 0:
                of_place = next(self._seeds[at])
                if all(row.row_id not in self._outcomes for row in of_place):
                    self._seeds[at] = chain([of_place], self._seeds[at])
                    break
                rows += self._take(at, of_place)
        return rows

    def take_added(self, heed: Callable[[], None] = lambda: None) -> tuple[Candidates, list[SeedRow]]:
        """Return candidates that include rows added to the table since, and the rows to ask for.

        heed: as in `More`. Raises UserError if these make groups invalid.
        """
        if not self._has_own_table or (added := added_in(self._store)) == self._added:
            return self, []
        self._added = added  # so that invalid rows are tried only once
        new = Candidates(self._job, self._watch, heed=heed)
        new._folder, new._num_files, new._written = self._folder, self._num_files, self._written
        new._earlier, new._seen = self._earlier, set(self._earlier)
        self.close()
        return new, [row for row in new.resume() if row.row_id not in new._written]

    def ask(self, num_rows: int) -> list[SeedRow]:
        """Ask for more rows, by `rows_to_ask`; return them, including those that already have a record."""
        rows: list[SeedRow] = []
        while numbers := acceptance.rows_to_ask(self.groups, num_rows, self.section.rate):
            rows += [row for at, number in numbers.items() for row in self.extend(at, number)]
            num_rows = 0
        return rows

    def extend(self, at: int, number: int) -> list[SeedRow]:
        """Ask for the next rows of a group."""
        return [row for rows in islice(self._seeds[at], number) for row in self._take(at, rows)]

    def _take(self, at: int, rows: list[SeedRow]) -> list[SeedRow]:
        """Ask for rows that are accepted together."""
        row_ids = [row.row_id for row in rows]
        self._places |= dict.fromkeys(row_ids, (at, len(self._asked[at])))
        self._asked[at].append(row_ids)
        self.groups[at].outcomes.append(self._outcome_of(row_ids))
        return rows

    def write(self, rows: Sequence[SeedRow]) -> str:
        """Write rows as a table into the output; return its path there."""
        path = f"{self._folder}/{self._num_files:06d}.parquet"
        self._num_files += 1
        self._written |= {row.row_id for row in rows}
        with tempfile.TemporaryDirectory(prefix="framefleet-") as folder:
            self._store.upload(path, self.write_to(Path(folder, "rows.parquet"), rows))
        return path

    def write_to(self, file: Path, rows: Sequence[SeedRow]) -> Path:
        """Write rows with their seeds as a table with the columns of the job's table."""
        seed = self._job.columns.get("seed", "seed")
        table = self._table.take(pa.array([row.place for row in rows], pa.int64()))
        table = table.drop_columns([seed] if seed in table.column_names else [])
        table = table.append_column(seed, pa.array([row.seed for row in rows], pa.int64()))
        pq.write_table(table.replace_schema_metadata(None), file)
        return file

    # -- What is accepted --

    def write_acceptance(self) -> acceptance.Acceptance:
        """Write the progress of the groups to the output, and return it."""
        groups = tuple(group.state() for group in self.groups)
        accepted = acceptance.Acceptance(groups=groups, table=self._folder)
        accepted.write(self._store)
        return accepted

    def write_marks(self, lock: ColumnLock) -> None:
        """Write to scores/ which clips are accepted, and which are surplus."""
        marks = [group.marks() for group in self.groups]

        def mark_of(row_id: str) -> tuple[bool, bool] | None:
            place = self._places.get(bytes.fromhex(row_id))
            # Clips of rows that are no longer asked for are surplus.
            return marks[place[0]][place[1]] if place else (False, True)

        write_marks(self._store, lock, mark_of)


def _quoted(name: str) -> str:
    """Return a column's name as SQL."""
    doubled = name.replace('"', '""')
    return f'"{doubled}"'
