"""From the cells of a table to a note on prompts with wildcards, which the model reads as text."""

from __future__ import annotations

from collections.abc import Collection

import pyarrow as pa
import pyarrow.compute as pc

from framefleet.pipeline.errors import count_text

_LORA = r"<lora:[^>]*>"  # `<lora:style:0.8>` of web interfaces
# `{red|blue}` of dynamic prompts, `__animal__` of their files.
_WILDCARD = rf"\{{[^{{}}|]*\|[^{{}}]*\}}|__[^_\s{{}}|][^{{}}|\n]*__|{_LORA}"


class Wildcards:
    """Counts prompts with wildcards. num_rows: rows with one; first: the first of these rows.

    columns: those with prompts. swept: columns of a sweep, which replaces wildcards unless they are escaped.
    """

    def __init__(self, columns: Collection[str], swept: Collection[str] = ()) -> None:
        self._columns, self._swept, self.num_rows, self.first = columns, swept, 0, -1

    def add(self, first_index: int, batch: pa.RecordBatch) -> None:
        for name in {*self._columns} & {*batch.schema.names}:
            if batch.schema.field(name).type in (pa.string(), pa.large_string()):
                cells = batch.column(name).cast(pa.large_binary())  # some may not be UTF-8
                pattern = _LORA if name in self._swept else _WILDCARD
                rows = pc.indices_nonzero(pc.match_substring_regex(cells, pattern))
                if len(rows) and not self.num_rows:
                    self.first = first_index + rows[0].as_py()
                self.num_rows += len(rows)

    def note(self) -> str | None:
        """Return a note about them, if there are any."""
        if not self.num_rows:
            return None
        return (
            f"note: prompts of {count_text(self.num_rows, 'row')} have wildcards such as {{a|b}} or "
            f"__animal__, or <lora:...>, row {self.first} first; the model reads them as text; `sweep:` of "
            "the job renders each choice, and a column `lora` names LoRAs"
        )
