"""The checked options of an export: which clips and columns, in which format."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

from framefleet.api.errors import JobError
from framefleet.pipeline.plugin import by_name

if TYPE_CHECKING:
    from framefleet.plugins.picks import Pick

ClipFile = Literal["clip", "derived"]  # the row's clip, or the second file from `post:`
# The hub allows 10,000 files per folder. One reader loads a whole shard, so half a gigabyte is enough.
SHARD_ROWS, SHARD_MB = 5000, 512
ALL_COLUMNS = ("all",)
MAX_PAIRS = 100  # per prompt: all pairs of 15 clips
_WITHOUT_SPLITS = {"folder": "a folder for people", "vbench": "VBench", "lerobot": "a LeRobot dataset"}
_MAX_DISTANCE = 32  # of 64 bits: hashes of two unrelated pictures differ in about 32


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportChoice:
    format: str
    file: ClipFile = "clip"
    where: str | None = None  # a condition in SQL
    picks: Mapping[str, Pick] | None = None  # export only these rows
    in_table: bool = False  # export only rows that are still in the table
    columns: tuple[str, ...] | None = None  # None: the lean set
    caption: str | None = None  # a template over columns
    validation: float | None = None  # share of the prompts in the validation split; None: no split
    name: str | None = None  # a template for file names (format folder)
    # Largest Hamming distance between the hashes of two near duplicates; None keeps them.
    near_duplicates: int | None = None
    by: str | None = None  # column that rates clips (format preferences); None: stars
    margin: float | None = None  # minimum difference between the ratings of a pair
    max_pairs: int | None = None  # per prompt; None: MAX_PAIRS
    shard_rows: int = SHARD_ROWS  # maximum per shard
    shard_mb: int = SHARD_MB  # of clips

    def __post_init__(self) -> None:
        if self.format not in (formats := by_name("export_formats")):
            raise JobError(f"format is {self.format!r}", f"use {', '.join(formats)}")
        if self.file not in get_args(ClipFile):
            raise JobError(f"file is {self.file!r}", f"use {' or '.join(get_args(ClipFile))}")
        if self.format in _WITHOUT_SPLITS and self.validation is not None:
            kind = _WITHOUT_SPLITS[self.format]
            raise JobError(f"validation is set, but {kind} has no splits", "leave it out")
        if self.name is not None and self.format != "folder":
            raise JobError(f"name is set, but format is {self.format}", "use --format folder")
        is_of_pairs = self.format == "preferences"
        for name in ("columns",) if is_of_pairs else ("by", "margin", "max_pairs"):
            if getattr(self, name) not in (None, ()):
                fix = "leave it out: pairs name their rows" if is_of_pairs else "use --format preferences"
                raise JobError(f"{name} is set, but format is {self.format}", fix)
        if self.margin is not None and not 0 <= self.margin < math.inf:
            raise JobError(f"margin is {self.margin}", "use a number of at least 0")
        if self.validation is not None and not 0 < self.validation < 1:
            raise JobError(f"validation is {self.validation}", "use a share between 0 and 1, e.g. 0.05")
        if self.near_duplicates is not None and not 0 <= self.near_duplicates <= _MAX_DISTANCE:
            raise JobError(
                f"near_duplicates is {self.near_duplicates}",
                f"use 0 (equal hashes) to {_MAX_DISTANCE}; 4 to 8 finds clips that look the same",
            )

    def description(self) -> dict[str, Any]:
        """Return the options that decide which rows are in which shard, as JSON values."""
        from framefleet.plugins.picks import Pick  # slow to import

        texts = [
            row_id if pick == Pick() else json.dumps([row_id, pick.stars, pick.note])
            for row_id, pick in sorted((self.picks or {}).items())
        ]
        digest = hashlib.sha256("".join(texts).encode()).hexdigest()
        values = asdict(replace(self, picks=None))
        if not self.in_table:  # so that exports of older versions can continue
            del values["in_table"]
        return values | {
            "picks": None if self.picks is None else digest,
            "columns": "lean" if self.columns is None else list(self.columns),
        }
