"""The rows that a training uses: kept as Arrow columns, handed out one by one as `TrainingRow`.

A million rows are about 300 MB, and travel to other processes as they are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa

from framefleet.pipeline.errors import TableError
from framefleet.pipeline.guards.json_text import canonical_json, parse_json
from framefleet.plugins.train.task import Bucket, TrainingRow

_SCHEMA = pa.schema(
    [
        ("index", pa.int64()),
        ("video", pa.string()),
        ("sha256", pa.string()),
        ("arguments", pa.string()),  # canonical JSON
        ("num_frames", pa.int32()),  # of the bucket, as height and width
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("repeats", pa.int32()),
    ]
)
_SIZE = ("num_frames", "height", "width")
# Arguments that decide how long embeddings are, or are one number for all rows of a forward (LTX).
ALIKE = ("max_sequence_length", "frame_rate")
_PART_ROWS = 4096  # how many wait as Python values
_MAX_BYTES = 8 << 30  # in memory, as all workers hold them; some 25 million rows of ordinary prompts


class TrainingRows:
    """Rows in table order; refused ones are not among them, so a position is not an index in the table."""

    def __init__(self, rows: Iterable[TrainingRow]) -> None:
        batches, size = [], 0
        waiting: list[dict[str, Any]] = []
        for row in rows:
            waiting.append(
                {name: getattr(row, name) for name in ("index", "video", "sha256", "repeats")}
                | {name: getattr(row.bucket, name) for name in _SIZE}
                | {"arguments": canonical_json(dict(row.arguments))}
            )
            if len(waiting) == _PART_ROWS:
                batches.append(pa.RecordBatch.from_pylist(waiting, _SCHEMA))
                waiting, size = [], size + batches[-1].nbytes
                if size > _MAX_BYTES:
                    raise TableError(
                        f"the first {row.index:,} rows take more than {_MAX_BYTES >> 30} GiB of memory",
                        "train on fewer rows, or on shorter prompts",
                    )
        batches.append(pa.RecordBatch.from_pylist(waiting, _SCHEMA))
        self._table: pa.Table = pa.Table.from_batches(batches, _SCHEMA).combine_chunks()

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def __getitem__(self, position: int) -> TrainingRow:
        if not 0 <= position < len(self):
            raise IndexError(position)
        (cells,) = self._table.slice(position, 1).to_pylist()
        bucket = _bucket(*(cells.pop(name) for name in _SIZE))
        return TrainingRow(**cells | {"arguments": parse_json(cells["arguments"])}, bucket=bucket)

    def buckets(self) -> list[Bucket]:
        """Return the bucket of every row, each value once in memory, with the conditions that rows share."""
        buckets_by_key: dict[tuple[int, int, int, str], Bucket] = {}
        columns = [self._table[name].to_pylist() for name in _SIZE]
        conditions = (_alike(arguments.as_py()) for arguments in self._table["arguments"])
        return [
            buckets_by_key.setdefault(values, _bucket(*values))
            for values in zip(*columns, conditions, strict=True)
        ]

    def repeats(self) -> Sequence[int]:
        """Return how often an epoch has every row."""
        counts: list[int] = self._table["repeats"].to_pylist()
        return counts

    def digest(self) -> str:
        """Return SHA-256 over what decides the training: contents of videos, arguments and so on, in order.

        Not over where the videos lie.
        """
        return self._digest(leave_out=("index", "video"))

    def contents_digest(self) -> str:
        """Return SHA-256 over what each row is in itself: as `digest`, without its repeats."""
        return self._digest(leave_out=("index", "video", "repeats"))

    def _digest(self, *, leave_out: Sequence[str]) -> str:
        names = [name for name in _SCHEMA.names if name not in leave_out]
        digest = hashlib.sha256()
        for batch in self._table.select(names).to_batches(_PART_ROWS):
            digest.update(canonical_json(batch.to_pylist()).encode("utf-8", "surrogatepass"))
        return digest.hexdigest()


def _alike(arguments: str) -> str:
    """Return those of a row's arguments that a forward has once, as canonical JSON; "" for none."""
    if not any(name in arguments for name in ALIKE):
        return ""
    conditions = {name: value for name, value in parse_json(arguments).items() if name in ALIKE}
    return canonical_json(conditions) if conditions else ""


def _bucket(num_frames: int, height: int, width: int, conditions: str = "") -> Bucket:
    return Bucket(num_frames=num_frames, height=height, width=width, conditions=conditions)
