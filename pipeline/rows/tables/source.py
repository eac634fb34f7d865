"""What rows are read from: a table of files, or a sweep."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Protocol

import pyarrow as pa


class RowSource(Protocol):
    """Rows that can be read as often as needed, numbered from 0. location: for messages."""

    @property
    def location(self) -> str: ...
    @property
    def schema(self) -> pa.Schema: ...
    def batches(self, batch_rows: int = 1024, *, start: int = 0) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Yield (index of the first row, up to `batch_rows` rows), in order. Raises TableError.

        start: rows before it are not wanted, and may come nevertheless.
        """
        ...

    def places(self, rows: Collection[int]) -> dict[int, str]:
        """Return where rows stand in files, as "line 19", for those that stand in any."""
        ...
