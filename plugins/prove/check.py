"""Render the rows of a certificate again, and count how many are what their records say."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa

from framefleet.api.clips import inputs_in
from framefleet.api.commands import Callback, Overview, Watch
from framefleet.api.errors import FramefleetError, not_ours
from framefleet.api.outputs import (
    CLAIM,
    MAX_CLIP_BYTES,
    RECORD_FIELDS,
    RECORDS,
    Output,
    Store,
    told_arguments,
)
from framefleet.jobs.show.watch import share_text
from framefleet.pipeline.outputs.parts.records import record_of
from framefleet.plugins.keep.portable import copy_files, input_path
from framefleet.plugins.keep.replay.compare import Compared
from framefleet.plugins.keep.replay.given import NOTHING, Given
from framefleet.plugins.keep.replay.recorded_row import arguments_of
from framefleet.plugins.keep.verify.verify import VerifiedRow, verified_rows
from framefleet.plugins.prove.certificate import CERTIFICATE, Certificate, read_certificate
from framefleet.plugins.prove.drawing import most_off

_TIMES = [field.name for field in RECORD_FIELDS if pa.types.is_timestamp(field.type)]


@dataclass(frozen=True, slots=True, kw_only=True)
class RowVerdict:
    """A drawn row. reason: why it is not what its record says; "" if it is."""

    row_id: str
    reason: str
    compared: Compared | None = None  # None if it was not rendered again


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class CheckedCertificate(Overview):
    """What the drawn rows prove about all rows."""

    seal: str
    coin: str
    num_rows: int
    rows: tuple[RowVerdict, ...]  # drawn rows

    @property
    def num_equal(self) -> int:
        """Number of drawn rows that are bit-exact."""
        return sum(not row.reason for row in self.rows)

    @property
    def num_other_machine(self) -> int:
        """Number of drawn rows that differ no more than clips of this model from two machines do."""
        return sum(row.compared is not None and row.compared.verdict == "other machine" for row in self.rows)

    @property
    def most_off(self) -> int:
        """Upper bound on the rows that are not what their records say, with 95 % confidence."""
        return self._most(self.num_equal)

    @property
    def most_far(self) -> int:
        """The same for rows whose difference is not explained by another machine."""
        return self._most(self.num_equal + self.num_other_machine)

    def _most(self, num_fine: int) -> int:
        return most_off(self.num_rows, num_drawn=len(self.rows), num_off=len(self.rows) - num_fine)

    @property
    def bound(self) -> str:
        """The result, in a sentence."""
        off, far = (share_text(most / self.num_rows) for most in (self.most_off, self.most_far))
        bound = (
            f"{self.num_equal:,} of {len(self.rows):,} equal: with 95 % confidence, at most {off} of "
            f"{self.num_rows:,} are not what the records say"
        )
        others = f"; {self.num_other_machine:,} as close as clips of two machines, and at most {far} are not"
        return bound + others * bool(self.num_other_machine)

    def overview(self) -> Mapping[str, object]:
        off = ", ".join(row.row_id for row in self.rows if row.reason)
        return {"seal": self.seal, "coin": self.coin, "found": self.bound, "not equal": off or None}


def check_certificate(certificate: str | Path, given: Given = NOTHING) -> CheckedCertificate:
    """Render the rows of a certificate again with plain calls; return what this proves about all rows.

    certificate: its folder, or certificate.json. given: where the model is now, and what else the certificate
    is not trusted with. Raises JobError for an altered certificate, and a row's error if none could be
    rendered.
    """
    store, path = certificate_at(str(certificate), given)
    drawn = read_certificate(store, path)
    return found_of(drawn, tuple(checked_rows(store, drawn, Callback(), given)))


def found_of(certificate: Certificate, rows: Sequence[RowVerdict]) -> CheckedCertificate:
    return CheckedCertificate(
        seal=certificate.seal, coin=certificate.coin, num_rows=certificate.num_rows, rows=tuple(rows)
    )


def certificate_at(certificate: str, given: Given) -> tuple[Store, str]:
    """Return the folder of a certificate, and its file."""
    if certificate.endswith(".json"):
        folder, _, name = certificate.rpartition("/")
        return Store(folder or ".", given.storage_options), name
    return Store(certificate, given.storage_options), CERTIFICATE


def checked_rows(store: Store, certificate: Certificate, watch: Watch, given: Given) -> Iterator[RowVerdict]:
    """Render the drawn rows again; yield each when it is done. store: has their inputs."""
    yield from (
        RowVerdict(row_id=row.row_id, reason="it has no record") for row in certificate.rows if row.is_missing
    )
    row_ids = [row.row_id for row in certificate.rows if not row.is_missing]
    errors: list[FramefleetError] = []
    if not row_ids:
        return
    with _as_output(store, certificate) as output:
        for row in verified_rows(output, watch, sample=None, seed=0, row_ids=row_ids, job=None, given=given):
            errors += [row.error] if row.error else []
            yield RowVerdict(row_id=row.record.row_id, reason=_why_off(row), compared=row.compared)
    if len(errors) == len(row_ids):
        raise errors[0]


def _why_off(row: VerifiedRow) -> str:
    """Return why a row is not what its record says, or "". Its stored files may be missing."""
    if row.error:
        return row.error.problem
    if wrong := [damage.reason for damage in row.damages if damage.kind == "record"]:
        return wrong[0]
    if row.compared.verdict in ("bit-exact", "file damaged"):
        return ""
    remarks = row.compared.remarks()
    if any(damage.kind == "missing" for damage in row.damages):
        remarks.append("its clip is not in the certificate, so the distance is unknown")
    return "; ".join([", ".join([row.compared.verdict, *row.compared.details()]), *remarks])


@contextmanager
def _as_output(store: Store, certificate: Certificate) -> Iterator[str]:
    """Yield an output with the drawn records, their inputs, and those of their files that are there."""
    rows = _typed([row.record for row in certificate.rows if not row.is_missing], store)
    with tempfile.TemporaryDirectory(prefix="framefleet-") as folder:
        place, text = Store(folder), json.dumps(certificate.job)
        place.write(CLAIM, text.encode())
        writer = Output(place).writer(RECORDS, rows.schema, job=text)
        for row in rows.to_pylist():
            record = record_of({name: row[name] for name in RECORD_FIELDS.names}, store.url_of(CERTIFICATE))
            for path in map(input_path, chain.from_iterable(map(inputs_in, arguments_of(record).values()))):
                with suppress(FileNotFoundError):  # reported for its row
                    place.write(path, store.read(path, MAX_CLIP_BYTES))  # inputs are smaller
            copy_files(Output(store), row, place)
            writer.add(None, row)
        writer.flush()
        yield folder


def _typed(records: Sequence[Mapping[str, Any]], store: Store) -> pa.Table:
    """Return records with the types of their columns. Raises JobError for what no record has."""
    try:
        names = dict.fromkeys(name for record in records for name in told_arguments(record))
        own = {name: record[name] for record in records for name in names if record.get(name) is not None}
        own = {name: value for name, value in own.items() if name not in RECORD_FIELDS.names}
        own = {name: value for name, value in own.items() if isinstance(value, str | int | float)}
        # After ours, where only columns that are called as an argument of the row are held against it.
        fields = [*RECORD_FIELDS, *((name, pa.scalar(value).type) for name, value in own.items())]
        times = [{name: datetime.fromisoformat(record[name]) for name in _TIMES} for record in records]
        rows = [{**record, **when} for record, when in zip(records, times, strict=True)]
        table = pa.Table.from_pylist(rows, pa.schema(fields))
        table.validate(full=True)
        if lacking := [one.name for one in RECORD_FIELDS if not one.nullable and table[one.name].null_count]:
            raise ValueError(f"it has no {lacking[0]}")
    except (pa.ArrowException, KeyError, OverflowError, TypeError, ValueError) as error:
        raise not_ours(store.url_of(CERTIFICATE), f"a record cannot be read: {error}") from error
    return table
