"""From a condition to an output without the rows for which it is true: no clip, no record, no word of them.

What quotes a row goes first: tables, pages and answers are found by the texts in its record. Then its record
goes, then the files that are named by its row_id. So the same command completes what a kill interrupted.
forgotten.json keeps the row_ids: rows of a table that have them are not rendered again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa

from framefleet.cluster.driver.lock import DriverLock
from framefleet.jobs.job.job_json import Claim, read_claim
from framefleet.jobs.show.watch import Callback, Watch, wait_for
from framefleet.pipeline.errors import JobError, count_text
from framefleet.pipeline.outputs.layout import CLAIM, FAILURES, FORGOTTEN, ROWS
from framefleet.pipeline.outputs.output import Output, outputs_in
from framefleet.pipeline.outputs.parts.part_file import columns_of, read_part
from framefleet.pipeline.outputs.parts.parts import no_record, whole_row_id
from framefleet.pipeline.outputs.parts.pending_clips import announced_rows
from framefleet.pipeline.outputs.parts.record_tables import record_schema_of, record_tables
from framefleet.pipeline.outputs.parts.seals import Part, live_parts, parts_in
from framefleet.pipeline.outputs.query import columns_in, rows_where
from framefleet.pipeline.outputs.row_states import forgotten_rows, row_ids_in
from framefleet.pipeline.outputs.stores.store import Store
from framefleet.pipeline.overview import Overview
from framefleet.pipeline.plugin import inner_outputs
from framefleet.plugins.forget.removal import TABLE_FOLDERS, Removal
from framefleet.plugins.forget.texts import RowTexts, nested_texts


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Forgotten(Overview):
    """What was taken out of an output."""

    url: str
    num_rows: int  # that were found, drafts included
    num_deleted: int  # files
    num_rewritten: int  # files that say the rest as before
    left: tuple[str, ...]  # where else these rows are, or may be: a line for each place

    def overview(self) -> Mapping[str, object]:
        return {
            "output": self.url,
            "rows": f"{self.num_rows:,}",
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
    """Delete rows of an output for good: their clips, records, failures, answers, and whatever quotes them.

    where: a condition on a record in SQL. row_ids: more rows, also by their first digits or clips' names.
    dry_run: change nothing. Only the row_ids stay, in forgotten.json: rows of the job's table that have them
    are not rendered again. If it is killed, the same call completes it. Raises JobError where a job writes to
    the output, and for a condition or a row_id that is wrong.
    """
    opened = Output.open(output, storage_options)
    return forget_rows(opened, Callback(), where=where, row_ids=row_ids, dry_run=dry_run)


def forget_rows(
    output: Output, watch: Watch, *, where: str | None, row_ids: Collection[str], dry_run: bool
) -> Forgotten:
    """Do what `forget` does, reporting to `watch`."""
    if where is None and not row_ids:
        raise JobError("no rows are named", "say which: --where SQL or --row ROW_ID")
    stores = [*outputs_in(output.store).values()]
    with ExitStack() as exits:
        locks = [] if dry_run else [exits.enter_context(DriverLock(one, renders=False)) for one in stores]
        wait_for(watch, "looking for the rows")
        earlier = frozenset[str]().union(*map(forgotten_rows, stores))
        matches = _named_rows(stores, row_ids, earlier)
        columns = frozenset[str]()
        if where is not None:
            chosen, columns = _chosen_rows(stores, where)
            matches |= chosen
        matches |= _linked_rows(stores, matches)
        texts = RowTexts.of(stores, earlier | matches)
        claim = read_claim(output.store) if output.store.exists(CLAIM) else None
        renamed = (claim.job.model_extra or {}).get("columns") if claim else None
        texts.columns |= {*nested_texts(renamed)}  # what the job's table calls them
        left = tuple(_left(output.store, stores, texts, claim)) if texts.row_ids else ()
        # Tables are in the outermost folder, though its own rows may not have begun.
        places = {store.url_of(""): (store, lock) for store, lock in zip(stores, locks, strict=False)}
        if locks:
            places = {output.url: (output.store, locks[0])} | places
        removals = [Removal(store, lock, texts, where, columns) for store, lock in places.values()]
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
        )


def _parts_with_rows(store: Store) -> list[Part]:
    return [*live_parts(store), *parts_in(store, FAILURES), *parts_in(store, ROWS)]


def _named_rows(stores: Collection[Store], row_ids: Collection[str], earlier: Collection[str]) -> set[str]:
    """Return the whole row_ids. Raises JobError for one that no row has."""
    if not row_ids:
        return set()
    parts = [(store, _parts_with_rows(store)) for store in stores]
    tables = (table for store, some in parts for table in row_ids_in(store, some))
    there = {row_id for table in tables for row_id in table["row_id"].to_pylist()}
    whole_ids = set()
    for row_id in row_ids:
        whole = {whole_row_id(store, row_id, some) for store, some in parts}
        if not whole & (there | {*earlier}):
            raise no_record(next(iter(stores)), row_id)
        whole_ids |= whole & there
    return whole_ids


def _chosen_rows(stores: Collection[Store], where: str) -> tuple[set[str], frozenset[str]]:
    """Return the rows for which a condition is true, by their records, failures, or what rows/ carries.

    And the columns that it is about. Raises JobError for what is no condition on rows of this output.
    """
    sources = [source for store in stores for source in _sources(store)]
    fields = {field.name: field for schema, _ in sources for field in schema}
    if not sources:  # nothing was rendered yet
        paths = ((one, path) for one in stores for folder in TABLE_FOLDERS for path in one.list(folder))
        fields = {field.name: field for one, path in paths for field in columns_of(one, path)[0]}
    columns = frozenset(columns_in(where, pa.schema(fields.values())))
    chosen = set[str]()
    for schema, read in sources:
        if columns <= {*schema.names}:
            for table in rows_where(iter(read([*{"row_id", *columns}])), where, [*fields]):
                chosen.update(table["row_id"].to_pylist())
    return chosen, columns


def _sources(store: Store) -> Iterator[tuple[pa.Schema, Callable[[list[str]], Iterable[pa.Table]]]]:
    """Yield where rows are listed: the columns, and what reads some of these."""

    def read(path: str, schema: pa.Schema, names: list[str]) -> list[pa.Table]:
        return [read_part(store, path, pa.schema([schema.field(name) for name in names]))]

    if live_parts(store):
        yield record_schema_of(store), partial(record_tables, store)
    for part in (*parts_in(store, FAILURES), *parts_in(store, ROWS)):
        schema = columns_of(store, part.path)[0]
        yield schema, partial(read, part.path, schema)


def _linked_rows(stores: Collection[Store], row_ids: Collection[str]) -> set[str]:
    """Return the drafts of rows, and the rows that were made of drafts."""
    linked = set[str]()
    for store in stores:
        names = record_schema_of(store).names
        for column in {one.row_id_column for one in inner_outputs().values()} & {*names}:
            for table in record_tables(store, ["row_id", column]):
                pairs = zip(table["row_id"].to_pylist(), table[column].to_pylist(), strict=True)
                linked.update(one for pair in pairs if {*pair} & {*row_ids} for one in pair if one)
    return linked


def _left(root: Store, stores: Collection[Store], texts: RowTexts, claim: Claim | None) -> Iterator[str]:
    """Yield where these rows are, or may be, that this command does not reach."""
    table = claim.job.table if claim else None
    if claim and table and not table.startswith(f"{claim.job.output.rstrip('/')}/"):
        yield f"the job's table, {table}: delete these rows there too"
    if claim and (own_texts := {*nested_texts(claim.model_dump())} & texts.rows_by_text.keys()):
        yield f"the job file, which says {count_text(len(own_texts), 'text')} of theirs: change it"
    if texts.inputs:
        files = count_text(len(texts.inputs), "image or video file")
        yield f"{files} that they name, e.g. {min(texts.inputs)}"
    if unknown := {row_id for store in stores for row_id in announced_rows(store)} - texts.row_ids:
        rows = count_text(len(unknown), "row")
        yield f"{rows} of an interrupted run that have no record yet: run the job, then forget again"
    yield (
        "exports, packs, sheets, uploaded data sets and models trained on these clips: search them for the "
        f"row_ids in {root.url_of(FORGOTTEN)}"
    )
