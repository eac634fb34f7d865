"""In: an output. Out: the rows that failed there, one after the other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from framefleet.pipeline.outputs.failed_rows import FailedRow
from framefleet.pipeline.outputs.output import Output


def failures(output: str, *, storage_options: Mapping[str, Any] | None = None) -> list[FailedRow]:
    """Return the rows of an output that failed and have no record, in the order of their table.

    Its drafts first. storage_options: what fsspec takes. Raises JobError where there is no output.
    """
    found = Output.open(output, storage_options).failures()
    return sorted(found, key=lambda row: (not row.is_draft, row.positions))
