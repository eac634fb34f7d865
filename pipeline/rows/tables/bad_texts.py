"""From cells of a text file that are not UTF-8 to what is said of them: what they likely are."""

from __future__ import annotations

import pyarrow as pa

from framefleet.pipeline.rows.tables.encodings import likely_encoding, refused_text
from framefleet.pipeline.rows.tables.odd_cells import OddCells
from framefleet.pipeline.rows.tables.readable import invalid_cells


class BadTexts:
    """Of one file, whose encoding is judged by the first batch that has such cells."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._encoding: str | None = None
        self._is_known = False

    def tell(self, batch: pa.RecordBatch, odd: OddCells) -> None:
        """Add them to `odd`; the cells stay as they are."""
        found = [
            (offset, name, column[offset].as_buffer().to_pybytes())
            for name, column in zip(batch.schema.names, batch.columns, strict=True)
            if column.type == pa.string()
            for offset in invalid_cells(column)
        ]
        bad = [cell for cell in found if not _is_half(cell[2])]
        if bad and not self._is_known:
            self._encoding = likely_encoding(b"\n".join(text for _, _, text in bad))
            self._is_known = True
        for offset, name, text in bad:
            why = refused_text(text, self._encoding, self._file)
            odd.setdefault(offset, []).append((name, text.decode("utf-8", "replace"), why))


def _is_half(text: bytes) -> bool:
    """Tell whether a text is UTF-8 but for halves of characters, as JSON may escape them."""
    try:
        text.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return False
    return True
