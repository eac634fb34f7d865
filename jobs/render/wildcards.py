"""From the prompts of a table to a note on those with wildcards, which other programs replace."""

from __future__ import annotations

from collections.abc import Collection

import pyarrow as pa
import pyarrow.compute as pc

# `{red|blue}` of dynamic prompts, `__animal__` of their files.
_WILDCARD = r"\{[^{}|]*\|[^{}]*\}|\b__[A-Za-z][\w/-]*__"


class Wildcards:
    """columns: those that hold prompts. num_rows: with a wildcard; first: the first of them."""

    def __init__(self, columns: Collection[str]) -> None:
        self._columns, self.num_rows, self.first = columns, 0, -1

    def add(self, first_index: int, batch: pa.RecordBatch) -> None:
        for name in {*self._columns} & {*batch.schema.names}:
            if batch.schema.field(name).type in (pa.string(), pa.large_string()):
                cells = batch.column(name).cast(pa.large_binary())  # some may not be UTF-8
                rows = pc.indices_nonzero(pc.match_substring_regex(cells, _WILDCARD))
                if len(rows) and not self.num_rows:
                    self.first = first_index + rows[0].as_py()
                self.num_rows += len(rows)

    def note(self) -> str | None:
        """Return what to say of them, if there are any."""
        if not self.num_rows:
            return None
        rows = "1 row" if self.num_rows == 1 else f"{self.num_rows:,} rows"
        return (
            f"note: prompts of {rows} have wildcards such as {{a|b}} or __animal__, row {self.first} first; "
            "the model reads them as text; `sweep:` of the job renders each choice"
        )
