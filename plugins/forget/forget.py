"""Delete rows from an output: their clips, their records, and every text that quotes them.

Quotes in tables, pages and answers are deleted first, as they are found by the texts in the record. Then the
record is deleted, then the files named by the row_id. So the same command can complete a killed run.
forgotten.json keeps the row_ids, so that rows of a table with these are not rendered again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from framefleet.api.commands import Callback, Overview, Watch, wait_for
from framefleet.api.errors import JobError, count_text
from framefleet.api.jobs import Claim, read_claim
from framefleet.api.outputs import (
    CLAIM,
    FAILURES,
    RECORDS,
    ROWS,
    DriverLock,
    HeldOutput,
    Output,
    OutputFiles,
    Part,
    Store,
    columns_in,
    outputs_in,
    rows_where,
)
from framefleet.pipeline.outputs.layout import FORGOTTEN
from framefleet.pipeline.plugin import inner_outputs
from framefleet.plugins.columns.column_lock import check_idle
from framefleet.plugins.forget.removal import Removal, Search, table_folders
from framefleet.plugins.forget.texts import RowTexts, is_text, nested_texts


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Forgotten(Overview):
    """The result of `forget`."""

    url: str
    num_rows: int  # found, including drafts and `num_earlier`
    num_deleted: int  # files
    num_rewritten: int  # files from which rows were removed
    left: tuple[str, ...]  # a line for each other place with these rows
    pages: tuple[str, ...] = ()  # deleted, although they showed other rows too; they can be made again
    num_earlier: int = 0  # named by an earlier call, which was killed before it ended
    # Positions in the table of other rows with the row_id of one of these: they share its clip, and go too.
    sharing: tuple[int, ...] = ()

    def overview(self) -> Mapping[str, object]:
        return {
            "output": self.url,
            "rows": f"{self.num_rows:,}",
            "sharing clips": count_text(len(self.sharing), "row") if self.sharing else None,
            "files": f"{self.num_deleted:,} deleted, {self.num_rewritten:,} rewritten",
            "left": "; ".join(self.left) or None,
        }


def forget(
    output: str,
    *,
    where: str | None = None,
    row_ids: Collection[str] = (),
    dry_run: bool = False,
    storage_options: Mapping[str, Any] | None = None,
) -> Forgotten:
    """Delete rows of an output for good: clips, records, failures, answers, and everything that quotes them.

    where: a condition on a record in SQL. row_ids: more rows, also by their first digits or clips' names.
    dry_run: change nothing. Only the row_ids stay, in forgotten.json, so that rows of the job's table with
    these are not rendered again. If it is killed, the same call completes it. Raises JobError while a job
    writes to the output, and for an invalid condition or row_id.
    """
    opened = Output.open(output, storage_options)
    return forget_rows(opened, Callback(), where=where, row_ids=row_ids, dry_run=dry_run)


def forget_rows(
    output: Output, watch: Watch, *, where: str | None, row_ids: Collection[str], dry_run: bool
) -> Forgotten:
    """Forget rows, as `forget` does, and report to `watch`."""
    if where is None and not row_ids:
        raise JobError("no rows are named", "name them with --where SQL or --row ROW_ID")
    stores = [*outputs_in(output.store).values()]
    with ExitStack() as exits:
        locks = [] if dry_run else [exits.enter_context(DriverLock(one, renders=False)) for one in stores]
        for store in stores if locks else ():
            check_idle(store)
        wait_for(watch, "looking for the rows")
        files = [OutputFiles(store) for store in stores]
        earlier = frozenset[str]().union(*(one.forgotten() for one in files))
        unfinished = _rows_there(files, earlier)
        matches = _named_rows(files, row_ids, earlier) | unfinished
        columns, lacking, about_texts = frozenset[str](), frozenset[str](), None
        if where is not None:
            chosen, fields, lacking = _chosen_rows(files, where)
            matches |= chosen
            columns = frozenset(field.name for field in fields)
            about_texts = where if all(is_text(field.type) for field in fields) else None
        matches |= _linked_rows(stores, matches)
        texts = RowTexts.of(stores, earlier | matches)
        claim = read_claim(output.store) if output.store.exists(CLAIM) else None
        renamed = (claim.job.model_extra or {}).get("columns") if claim else None
        texts.columns |= {*nested_texts(renamed)}  # their names in the job's table
        left = tuple(_left(output.store, stores, texts, claim)) if texts.row_ids else ()
        if lacking:
            names = " and ".join(sorted(lacking))
            left = (f"rows without a record, which have no {names} yet: name them by other columns", *left)
        # Tables are in the outermost folder, even if its own rows were not started.
        places = {store.url_of(""): (store, lock) for store, lock in zip(stores, locks, strict=False)}
        if locks:
            places = {output.url: (output.store, locks[0])} | places
        sharing = _sharing_rows(OutputFiles(output.store), matches, where, columns)
        search = Search(texts=texts, where=about_texts, columns=columns)
        for store in {one.url_of(""): one for one in (output.store, *stores)}.values():
            search.check(OutputFiles(store))  # before anything is changed
        removals = [Removal(HeldOutput(store, lock), lock, search) for store, lock in places.values()]
        steps = [Removal.empty_tables]
        if texts.row_ids:
            steps = [Removal.remember, *steps, Removal.delete_quotes]
            steps += [Removal.delete_rows, Removal.delete_files]
        if removals:
            wait_for(watch, "deleting them")
        for step in steps:
            for one in removals:
                step(one)
        return Forgotten(
            url=output.url,
            num_rows=len(matches),
            num_deleted=sum(one.num_deleted for one in removals),
            num_rewritten=sum(one.num_rewritten for one in removals),
            left=left,
            pages=tuple(sorted({page for one in removals for page in one.pages if not page.startswith(".")})),
            num_earlier=len(unfinished),
            sharing=tuple(sharing),
        )


def _rows_there(files: Sequence[OutputFiles], row_ids: Collection[str]) -> set[str]:
    """Return which of these rows are in records, failures or rows/."""
    if not row_ids:
        return set()
    wanted = pa.array(row_ids, pa.string())
    columns = (ids for one in files for ids in one.row_ids(one.parts(RECORDS, FAILURES, ROWS)))
    return {row_id for ids in columns for row_id in ids.filter(pc.is_in(ids, wanted)).to_pylist()}


def _named_rows(files: Sequence[OutputFiles], row_ids: Collection[str], earlier: Collection[str]) -> set[str]:
    """Return the full row_ids. Raises JobError if no row has one of them."""
    if not row_ids:
        return set()
    whole = {row_id: {one.whole_row_id(row_id) for one in files} for row_id in row_ids}
    there = _rows_there(files, {*chain(*whole.values())})
    for row_id, meant in whole.items():
        if meant.isdisjoint(there | {*earlier}):
            raise files[0].no_record(row_id)
    return there


def _chosen_rows(files: Sequence[OutputFiles], where: str) -> tuple[set[str], list[pa.Field], frozenset[str]]:
    """Return the rows for which a condition is true, in records, failures or rows/, and its columns there.

    And those that some of these places lack, where no row is chosen. Raises JobError for an invalid
    condition.
    """
    sources = [source for one in files for source in _sources(one)]
    schemas = [schema for schema, _ in sources]
    if not sources:  # nothing was rendered yet
        schemas = [one.schema(part) for one in files for part in one.parts(*table_folders())]
    fields = {field.name: field for schema in schemas for field in schema}
    columns = frozenset(columns_in(where, pa.schema(fields.values())))
    chosen, lacking = set[str](), frozenset[str]()
    for schema, read in sources:
        lacking |= columns - {*schema.names}
        if columns <= {*schema.names}:
            for table in rows_where(iter(read([*{"row_id", *columns}])), where, [*fields]):
                chosen.update(table["row_id"].to_pylist())
    return chosen, [field for schema in schemas for field in schema if field.name in columns], lacking


def _sources(files: OutputFiles) -> Iterator[tuple[pa.Schema, Callable[[list[str]], Iterable[pa.Table]]]]:
    """Yield places that list rows: their columns, and a function that reads some of these."""

    def read(part: Part, names: list[str]) -> list[pa.Table]:
        return [files.table(part).select(names)]

    if files.parts(RECORDS):
        output = Output(files.store)
        yield output.schema(), output.records
    for part in files.parts(FAILURES, ROWS):
        yield files.schema(part), partial(read, part)


def _sharing_rows(
    files: OutputFiles, row_ids: Collection[str], where: str | None, columns: frozenset[str]
) -> list[int]:
    """Return the positions in the table of rows with these row_ids that nobody named.

    The condition names a row if it is true for it in rows/; else the first of a row_id is meant.
    """
    wanted = pa.array(row_ids, pa.string())
    places: dict[str, list[tuple[bool, int]]] = {}  # whether the condition is false, and the position
    for part in files.parts(ROWS):
        table, named = files.table(part), set[int]()
        table = table.filter(pc.is_in(table["row_id"], wanted))
        if where is not None and columns <= {*table.column_names}:
            (chosen,) = rows_where(iter([table]), where)
            named.update(chosen["row_index"].to_pylist())
        for row_id, position in zip(table["row_id"].to_pylist(), table["row_index"].to_pylist(), strict=True):
            places.setdefault(row_id, []).append((position not in named, position))
    others = (place for of_row in places.values() for place in sorted(of_row)[1:])
    return sorted(position for is_other, position in others if is_other)


def _linked_rows(stores: Collection[Store], row_ids: Collection[str]) -> set[str]:
    """Return the drafts of these rows, and the rows made from these drafts."""
    linked = set[str]()
    for store in stores:
        output = Output(store)
        names = output.schema().names
        for column in {f"{section}_row_id" for section in inner_outputs().values()} & {*names}:
            for table in output.records(["row_id", column]):
                pairs = zip(table["row_id"].to_pylist(), table[column].to_pylist(), strict=True)
                linked.update(one for pair in pairs if {*pair} & {*row_ids} for one in pair if one)
    return linked


def _left(root: Store, stores: Collection[Store], texts: RowTexts, claim: Claim | None) -> Iterator[str]:
    """Yield other places where these rows are or may be, which this command cannot reach."""
    table = claim.job.table if claim else None
    here = f"{claim.job.output.rstrip('/')}/" if claim else root.url_of("")
    if claim and table and not table.startswith(here):
        yield f"the job's table, {table}; delete these rows there, too"
    if claim and (own_texts := {*nested_texts(claim.model_dump())} & texts.rows_by_text.keys()):
        yield f"the job file, which has {count_text(len(own_texts), 'text')} of theirs; change it"
    if inputs := [uri for uri in texts.inputs if not uri.startswith(here)]:
        files = count_text(len(inputs), "image or video file")
        yield f"{files} that they name, e.g. {min(inputs)}"
    if unknown := {row_id for store in stores for row_id in OutputFiles(store).uncommitted()} - texts.row_ids:
        rows = count_text(len(unknown), "row")
        yield f"{rows} of an interrupted run without a record yet; run the job, then forget again"
    yield (
        "exports, packs, sheets, uploaded datasets, models trained on these clips, and old versions that a "
        f"bucket keeps; search them for the row_ids that {root.url_of(FORGOTTEN)} has afterwards"
    )
