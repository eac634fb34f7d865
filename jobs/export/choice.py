"""What of an output is handed on, and in which form. Checked here."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Literal, get_args

from framefleet.pipeline.errors import JobError

ExportFormat = Literal["webdataset", "parquet", "hf"]
# The hub takes 10,000 files in a folder, and a shard of half a gigabyte is read at once by one worker.
SHARD_ROWS, SHARD_MB = 5000, 512


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportChoice:
    """where: a condition in SQL. picks: only these rows. columns: of the records; None is all.

    shard_rows, shard_mb: a shard ends with whichever comes first; of clips, in megabytes.
    """

    format: ExportFormat
    where: str | None = None
    picks: frozenset[str] | None = None
    columns: tuple[str, ...] | None = None
    shard_rows: int = SHARD_ROWS
    shard_mb: int = SHARD_MB

    def __post_init__(self) -> None:
        if self.format not in get_args(ExportFormat):
            raise JobError(f"format is {self.format!r}", f"use {', '.join(get_args(ExportFormat))}")
        for name in ("shard_rows", "shard_mb"):
            if getattr(self, name) < 1:
                raise JobError(f"{name} is {getattr(self, name)}", "use a whole number from 1 up")

    def said(self) -> dict[str, Any]:
        """Return what decides which rows are in which shard, as JSON has it."""
        picks = None if self.picks is None else "".join(sorted(self.picks)).encode()
        return {
            "format": self.format,
            "where": self.where,
            "picks": None if picks is None else hashlib.sha256(picks).hexdigest(),
            "columns": None if self.columns is None else list(self.columns),
            "shard_rows": self.shard_rows,
            "shard_mb": self.shard_mb,
        }
