"""Seal all records of an output; with a coin, write a certificate of the drawn rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any

from framefleet.api.commands import Overview
from framefleet.api.errors import JobError, bytes_text, count_text
from framefleet.api.jobs import claim_of
from framefleet.api.outputs import CLAIM, RECORDS, Output, OutputFiles, Store, rows_of
from framefleet.api.sections import AtLeastOne
from framefleet.api.texts import parse_json
from framefleet.pipeline.outputs.parts.records import may_come_later
from framefleet.plugins.keep.new_folder import new_folder
from framefleet.plugins.keep.portable import copy_files, copy_inputs, portable_record, take_out_folders
from framefleet.plugins.keep.record_law import RecordLaw
from framefleet.plugins.keep.replay.given import NOTHING, Given
from framefleet.plugins.prove.certificate import (
    CERTIFICATE,
    CERTIFICATE_PAGE,
    MAX_CERTIFICATE_BYTES,
    MAX_COIN,
    MAX_DRAWN,
    MISSING,
    Certificate,
    DrawnRow,
    as_sealed,
    certificate_page,
    record_hash,
    seal_of,
)
from framefleet.plugins.prove.drawing import drawn_positions
from framefleet.plugins.prove.tree import Tree

NUM_ROWS = 60  # if all of these are equal, at most 4.9 % of all rows are not


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Proven(Overview):
    """A sealed output; with a coin, also the drawn rows."""

    seal: str
    num_rows: int  # in the table or the records
    num_missing: int  # rows without a record, which count as wrong
    folder: str | None = None  # of the certificate
    row_ids: tuple[str, ...] = ()  # drawn rows

    def overview(self) -> Mapping[str, object]:
        return {
            "seal": self.seal,
            "rows": f"{self.num_rows:,}",
            "without record": f"{self.num_missing:,}" if self.num_missing else None,
            "drawn": f"{len(self.row_ids):,}" if self.folder else None,
            "certificate": self.folder,
        }


def prove(
    output: str | Path,
    folder: str | Path | None = None,
    *,
    rows: AtLeastOne = NUM_ROWS,
    coin: str | None = None,
    given: Given = NOTHING,
) -> Proven:
    """Seal all records of an output; with a coin, write a certificate of the rows that seal and coin draw.

    folder: for the certificate, new or empty; None is NAME-certificate in the current folder. coin: a public
    value that nobody could know or choose when the seal was published, such as a lottery number; None: only
    return the seal. given: where the rows' inputs may be read. Raises JobError if there are no records, or
    the folder is not empty, or for rows or a folder without a coin.
    """
    if coin is not None and not 0 < len(coin) <= MAX_COIN:
        raise JobError(f"the coin has {len(coin):,} characters", f"use 1 to {MAX_COIN:,}")
    if coin is not None and not coin.isprintable():
        raise JobError(f"the coin is {coin!r}", "use one line of text")
    if coin is None and (folder is not None or rows != NUM_ROWS):
        used = "FOLDER" if folder is not None else "--rows"
        raise JobError(f"{used} is for drawn rows, and none are drawn without --coin", f"leave {used} out")
    if rows > MAX_DRAWN:
        raise JobError(f"rows is {rows:,}", f"draw at most {MAX_DRAWN:,}")
    opened = Output.open_rendered(str(output), given.storage_options).now()
    law = RecordLaw.of(opened.store, opened.schema())
    ids, hashes, num_missing = _leaves(opened, law)
    tree = Tree(hashes)
    claim_of(opened.store)  # raises if job.json is invalid
    job = parse_json(opened.store.read(CLAIM))
    if engine := job["job"].get("engine"):
        problem = f"rows of {opened.url} were made by the engine {engine.get('model')} and cannot be replayed"
        raise JobError(problem, "compare its clips with those of a model, with `framefleet audit`")
    take_out_folders(job)
    root, num_rows = tree.root.hex(), len(hashes)
    proven = Proven(
        seal=seal_of(root, num_rows=num_rows, job=job), num_rows=num_rows, num_missing=num_missing
    )
    if coin is None:
        return proven
    positions = drawn_positions(proven.seal, coin, num_rows=num_rows, count=rows)
    row_ids = [ids[position] for position in positions]
    drawn, holding = {*row_ids}, opened.holding(row_ids)
    records = {row["row_id"]: row for row in _records(holding) if row["row_id"] in drawn}
    certificate = Certificate(
        seal=proven.seal,
        coin=coin,
        num_rows=num_rows,
        root=root,
        job=job,
        rows=[
            DrawnRow(
                position=position,
                record=_sealed(records[row_id], law) if row_id in records else _missing(row_id),
                path=[one.hex() for one in tree.path(position)],
            )
            for position, row_id in zip(positions, row_ids, strict=True)
        ],
    )
    certificate = certificate.model_copy(update={"digest": certificate.own_digest})
    content = certificate.model_dump_json(indent=1).encode()
    if len(content) > MAX_CERTIFICATE_BYTES:
        problem = f"a certificate of {count_text(len(positions), 'row')} has {bytes_text(len(content))}"
        raise JobError(
            f"{problem}; {bytes_text(MAX_CERTIFICATE_BYTES)} can be read", "draw fewer rows (--rows)"
        )
    folder = Path(folder or f"{PurePosixPath(opened.url.rstrip('/')).name}-certificate")
    with new_folder(folder):
        place = Store(str(folder))
        for record in records.values():
            copy_inputs(opened.store, record, given, place)
            copy_files(opened, record, place)  # to see how far another machine's bits are
        place.write(CERTIFICATE_PAGE, certificate_page(certificate).encode("utf-8", "replace"))
        place.write(CERTIFICATE, content)
    return replace(proven, folder=str(folder), row_ids=tuple(row_ids))


def _leaves(output: Output, law: RecordLaw) -> tuple[list[str], list[bytes], int]:
    """Return the sorted row_ids, a hash for each, and the number of rows without a record."""
    hash_of = {row["row_id"]: record_hash(_sealed(row, law)) for row in _records(output)}
    if not hash_of:
        raise output.no_records()
    num_records, forgotten = len(hash_of), OutputFiles(output.store).forgotten()
    for row_id in chain.from_iterable(table["row_id"].to_pylist() for table in output.rows(["row_id"])):
        if row_id not in hash_of and row_id not in forgotten:
            hash_of[row_id] = record_hash(_missing(row_id))
    ids = sorted(hash_of)
    return ids, [hash_of[row_id] for row_id in ids], len(ids) - num_records


def _records(output: Output) -> Iterator[dict[str, Any]]:
    """Yield the records as they were committed, without scores, which may change."""
    files = OutputFiles(output.store)
    one_of_each_run = {part.run: part for part in files.parts(RECORDS)}.values()
    later = {field.name for part in one_of_each_run for field in files.schema(part) if may_come_later(field)}
    own = {name for part in one_of_each_run for name in files.schema(part).names}
    columns = [name for name in output.schema().names if name not in later and name in own]
    for table in output.records([*dict.fromkeys(["row_id", "path", "model", "arguments", *columns])]):
        yield from rows_of(table, output.url)


def _sealed(record: Mapping[str, Any], law: RecordLaw) -> dict[str, Any]:
    return as_sealed(portable_record(record, law))


def _missing(row_id: str) -> dict[str, Any]:
    return {"row_id": row_id, MISSING: True}
