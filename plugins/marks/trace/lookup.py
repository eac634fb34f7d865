"""In: what files name: digests, row_ids, first digits of row_ids. Out: the records of outputs that fit."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from framefleet.jobs.job.job_json import JOB_JSON
from framefleet.pipeline.errors import JobError
from framefleet.pipeline.guards.json_text import parse_json
from framefleet.pipeline.guards.regular_file import read_regular
from framefleet.pipeline.outputs.output import Output, find_claim_as
from framefleet.plugins.marks.claim import claimed_signing

# Of each record: what is shown, and what a file is compared with.
TRACED_COLUMNS = (
    *(
        "row_id",
        "row_indices",
        "arguments",
        "seed",
        "scheduler",
        "recipe",
        "model",
        "model_digest",
        "license",
    ),
    *("uri", "path", "media_sha256", "frames_sha256", "marked_sha256", "audio_sha256", "marks"),
    *("height", "width", "num_frames", "fps", "finished_at"),
)
_MAX_INDEX_BYTES = 1 << 20
_SHA256 = re.compile("[0-9a-f]{64}")


@dataclass(slots=True)
class Wanted:
    """What some files name. prefixes: of row_ids."""

    digests: set[str] = field(default_factory=set)
    row_ids: set[str] = field(default_factory=set)
    prefixes: set[str] = field(default_factory=set)

    def mask(self, table: pa.Table) -> pa.ChunkedArray:
        matches = pc.is_in(table["media_sha256"], pa.array(sorted(self.digests), pa.string()))
        matches = pc.or_(matches, pc.is_in(table["row_id"], pa.array(sorted(self.row_ids), pa.string())))
        for length in {len(prefix) for prefix in self.prefixes}:
            some = pa.array(sorted(one for one in self.prefixes if len(one) == length), pa.string())
            matches = pc.or_(matches, pc.is_in(pc.utf8_slice_codeunits(table["row_id"], 0, length), some))
        return matches


@dataclass(frozen=True, slots=True)
class TracedRecord:
    """A record, and the URL of its output. certificates: SHA-256 of those that may sign its clip."""

    output: str
    record: Mapping[str, Any]
    certificates: tuple[str, ...]

    @property
    def row_id(self) -> str:
        return str(self.record["row_id"])

    @property
    def marks(self) -> Mapping[str, Any]:
        """What it says that its clip carries; it may be anybody's."""
        try:
            content = parse_json(self.record["marks"] or "{}")
        except ValueError:
            content = None
        return content if isinstance(content, dict) else {}


def open_outputs(places: Sequence[str], storage_options: Mapping[str, Any] | None) -> list[Output]:
    """Return outputs, and those in them. places: each an output, or a text file that lists some, by
    line.

    Raises JobError for what is neither.
    """
    outputs = [Output.open(place, storage_options) for listed in places for place in _listed(listed)]
    return [one for output in outputs for one in (output, *output.inner.values()) if one.is_begun]


def look_up(outputs: Sequence[Output], wanted: Wanted) -> Iterator[TracedRecord]:
    """Yield the records of all outputs that these names may mean, in one pass over each."""
    for output in outputs:
        certificates = _certificates(output)
        for table in output.records(TRACED_COLUMNS):
            for record in table.filter(wanted.mask(table)).to_pylist():
                traced = TracedRecord(output.url, record, ())
                own = traced.marks.get("c2pa")
                signed = (own,) if isinstance(own, str) and _SHA256.fullmatch(own) else certificates
                yield TracedRecord(output.url, record, signed)


def _listed(place: str) -> list[str]:
    if "://" in place or not Path(place).exists() or Path(place).is_dir():
        return [place]
    fix = "give an output, or a text file with one per line"
    try:
        content = read_regular(place, _MAX_INDEX_BYTES + 1)
    except OSError as error:
        raise JobError(f"--output: {place} cannot be read: {error.strerror}", fix) from None
    if len(content) > _MAX_INDEX_BYTES:
        raise JobError(f"{place} is not a list of outputs", fix)
    lines = [line.strip() for line in content.decode("utf-8", "replace").splitlines()]
    return [line for line in lines if line]


def _certificates(output: Output) -> tuple[str, ...]:
    """Return those of clips whose records are of earlier versions, as job.json says."""
    try:
        claim = find_claim_as(output.store, JOB_JSON)
    except JobError:
        return ()
    sign = claimed_signing(claim.job.model_dump()) if claim else None
    return (sign.certificate_sha256,) if sign else ()
