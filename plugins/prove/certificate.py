"""A certificate: the drawn rows of an output, with proof that they were drawn and belong to it.

Stored as certificate.json, which is checked, and certificate.html, for people. Certificates are not trusted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from datetime import date, datetime, time
from html import escape
from math import isfinite
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, TypeAdapter

from framefleet.api.errors import JobError, escaped
from framefleet.api.outputs import Store, read_json
from framefleet.api.sections import Strict
from framefleet.api.texts import canonical_json
from framefleet.plugins.prove.drawing import drawn_positions
from framefleet.plugins.prove.tree import leaf_hash, root_from

CERTIFICATE, CERTIFICATE_PAGE = "certificate.json", "certificate.html"
MAX_DRAWN = 10_000  # in one certificate, some 40 MB
MAX_CERTIFICATE_BYTES = 256 << 20
MAX_COIN = 1000  # characters
MISSING = "is_missing"  # replaces the columns of a record for a row without one
_Hash = Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]


class DrawnRow(Strict):
    position: Annotated[int, Field(ge=0)]
    record: dict[str, Any]  # its columns, without nulls
    path: Annotated[list[_Hash], Field(max_length=64)]  # sibling hashes on the way to the root

    @property
    def row_id(self) -> str:
        return str(self.record["row_id"])

    @property
    def is_missing(self) -> bool:
        return self.record == {"row_id": self.row_id, MISSING: True}  # a column may have this name


class Certificate(Strict):
    format: Literal["framefleet certificate 1"] = "framefleet certificate 1"
    seal: _Hash  # of all records, the number of rows and the job
    coin: Annotated[str, StringConstraints(min_length=1, max_length=MAX_COIN)]
    num_rows: Annotated[int, Field(ge=1, lt=2**40)]
    root: _Hash
    job: dict[str, Any]  # job.json
    rows: Annotated[list[DrawnRow], Field(min_length=1, max_length=MAX_DRAWN)]
    digest: _Hash = "0" * 64  # of everything else, since with few rows, other coins may draw the same

    @property
    def own_digest(self) -> str:
        return _sha256(canonical_json(self.model_dump(exclude={"digest"})))

    def problems(self) -> Iterator[str]:
        """Yield what has changed since the certificate was made."""
        if self.own_digest != self.digest:
            yield "its digest does not match"
        if seal_of(self.root, num_rows=self.num_rows, job=self.job) != self.seal:
            yield "seal, root, num_rows and job do not belong together"
        drawn = drawn_positions(self.seal, self.coin, num_rows=self.num_rows, count=len(self.rows))
        if [row.position for row in self.rows] != drawn:
            yield "its rows are not the ones that seal and coin draw"
        for row in self.rows:
            path = [*map(bytes.fromhex, row.path)]
            root = root_from(record_hash(row.record), path, position=row.position, num_leaves=self.num_rows)
            if root is None or root.hex() != self.root:
                yield f"the row at position {row.position} was not sealed"
        in_order = [row.record.get("row_id") for row in sorted(self.rows, key=lambda row: row.position)]
        if in_order != sorted({*map(str, in_order)}):
            yield "its rows are not in the order of their row_ids, or one is repeated"


_CERTIFICATE = TypeAdapter(Certificate)


def read_certificate(store: Store, path: str) -> Certificate:
    """Read a certificate. Raises JobError if it was altered."""
    where = store.url_of(path)
    try:
        certificate = read_json(store, path, _CERTIFICATE, most=MAX_CERTIFICATE_BYTES)
    except FileNotFoundError:
        raise JobError(f"{where} does not exist", "give the folder of a certificate") from None
    try:
        problem = next(certificate.problems(), None)
    except ValueError as error:  # of NaN, which JSON of ours has not
        problem = str(error)
    if problem:
        raise JobError(f"{where} was altered: {problem}", "get it again from whoever made it")
    return certificate


def seal_of(root: str, *, num_rows: int, job: Mapping[str, Any]) -> str:
    text = canonical_json(job)
    values = {"job": _sha256(text), "num_rows": num_rows, "root": root}
    return _sha256(f"framefleet seal {canonical_json(values)}")


def as_sealed(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record as in a certificate: JSON values of all columns that are not null."""
    return {name: _plain(value) for name, value in record.items() if value is not None}


def record_hash(record: Mapping[str, Any]) -> bytes:
    """Return the hash of a record from `as_sealed`."""
    return leaf_hash(canonical_json(record).encode("utf-8", "surrogatepass"))


def _plain(value: Any) -> Any:
    """Return a cell as JSON has it: times, bytes, and what else is no value of JSON as text."""
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Mapping):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    is_number = isinstance(value, bool | int) or (isinstance(value, float) and isfinite(value))
    return value if value is None or is_number else str(value)  # text, NaN, decimals, UUIDs


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


_PAGE = """\
<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>framefleet certificate</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<style>body {{ font: 1rem/1.5 system-ui; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }}
pre, section {{ overflow-x: auto }} section table {{ min-width: 36rem }}
td, th {{ text-align: left; padding: .2rem .8rem .2rem 0; vertical-align: top }}
td {{ overflow-wrap: anywhere }}
</style></head><body>
<h1>{count:,} of {num_rows:,} rows, drawn by a coin</h1>
<p>First all records were sealed, then the coin drew these rows. Anybody with the weights can render them
again and see whether they are what their records say:</p>
<pre>framefleet check {file} --model MODEL</pre>
<p>This is a proof if you knew the seal before anybody could know the coin. Only {file} is checked, not this
page.</p>
<table><tr><th>seal of all records</th><td>{seal}</td></tr>
<tr><th>coin</th><td>{coin}</td></tr>
<tr><th>rows</th><td>{num_rows:,}, of which {count:,} were drawn</td></tr></table>
<h2>To render again</h2>
<section><table><tr><th>position</th><th>row</th><th>prompt</th><th>seed</th><th>model</th></tr>
{rows}
</table></section></body></html>
"""


def certificate_page(certificate: Certificate) -> str:
    """Return the HTML page. Text of records is escaped."""

    def line(row: DrawnRow) -> str:
        said = [row.record.get(name, "") for name in ("prompt", "seed", "model")]
        if row.is_missing:
            said[0] = "no record: the row failed, or was not rendered"
        cells = (row.position, row.row_id, *said)
        return f"<tr>{''.join(f'<td>{escape(escaped(str(cell)[:400]))}</td>' for cell in cells)}</tr>"

    return _PAGE.format(
        count=len(certificate.rows),
        num_rows=certificate.num_rows,
        file=CERTIFICATE,
        seal=certificate.seal,
        coin=escape(escaped(certificate.coin)),
        rows="\n".join(map(line, certificate.rows)),
    )
