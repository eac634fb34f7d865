"""From how a file begins to what it is in truth, where its name says something else."""

from __future__ import annotations

import re

from framefleet.pipeline.errors import TableError
from framefleet.pipeline.rows.tables.formats import packed

PARQUET = b"PAR1"
_WITH_A_LIBRARY = "convert it to Parquet, e.g. with pandas, Polars or DuckDB"
# How files begin that are often taken for tables: what each is, and what to do. `{name}` is the file's.
_BEGINNINGS: tuple[tuple[bytes, str, str], ...] = (
    (b"version https://git-lfs.github.com/", "a Git LFS pointer, not the table itself", "run `git lfs pull`"),
    (b"\x1f\x8b", "compressed with gzip", "rename it to {name}.gz"),
    (b"BZh", "compressed with bzip2", "rename it to {name}.bz2"),
    (b"\xfd7zXZ\0", "compressed with xz", "rename it to {name}.xz"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd", "unpack it, e.g. with `zstd -d`"),
    (PARQUET, "a Parquet file", "give it the ending .parquet"),
    (b"PARE", "an encrypted Parquet file", "write it without encryption"),
    (b"PK\x03\x04", "a spreadsheet or a zip", "save the sheet as CSV, or unpack it"),
    (b"\xd0\xcf\x11\xe0", "a spreadsheet of old Excel", "save the sheet as CSV"),
    (b"ARROW1", "an Arrow (Feather) file", _WITH_A_LIBRARY),
    (b"ORC", "an ORC file", _WITH_A_LIBRARY),
    (b"Obj\x01", "an Avro file", _WITH_A_LIBRARY),
    (b"SQLite format 3\0", "a SQLite database", _WITH_A_LIBRARY),
    (b"%PDF-", "a PDF", "save the table as CSV"),
)
_PAGE = re.compile(rb"\s*<(?:!doctype html|html|head|\?xml|!--)", re.IGNORECASE)
_BOM = b"\xef\xbb\xbf"


def mistaken_file(beginning: bytes, name: str, *, own: bytes = b"") -> TableError | None:
    """Return what is wrong with a file that is not what its name says.

    beginning: its first bytes, unpacked. own: how files of its format begin.
    """
    if _PAGE.match(beginning.removeprefix(_BOM)):
        return TableError(
            f"{name} is a web page, not a table",
            "download the file itself: its page may ask for a login, or have a link `raw` or `download`",
        )
    short = packed(name)[0].name
    for start, kind, fix in _BEGINNINGS:
        if beginning.startswith(start) and start != own and not _is_header(beginning, start):
            return TableError(f"{name} is {kind}", fix.replace("{name}", short))
    return None


def _is_header(beginning: bytes, start: bytes) -> bool:
    """Tell whether it is text that only begins like this, as a column called ORC_CLASS or PAR1."""
    return start.isalnum() and beginning[:256].split(b"\n")[0].strip().isascii() and b"\0" not in beginning
