"""From the name of a file to what kind of table it is. Opens nothing."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Literal

TableFormat = Literal["parquet", "csv", "tsv", "jsonl"]
FORMATS: dict[str, TableFormat] = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
}
COMPRESSED = (".gz", ".bz2", ".xz")
ENDINGS = f"tables end in {', '.join(FORMATS)}, all but Parquet also with {', '.join(COMPRESSED)} behind"


def file_format(path: str) -> TableFormat | None:
    """Return what the name says that the file is; None when it is not a table."""
    name, compression = packed(path)
    found = FORMATS.get(name.suffix.lower())
    return None if compression and found == "parquet" else found


def packed(path: str) -> tuple[PurePosixPath, str | None]:
    """Return the name of a file, and how it is compressed, which its last suffix says."""
    name = PurePosixPath(re.split("[?#]", path)[0] if "://" in path else path)
    suffix = name.suffix.lower()
    return (PurePosixPath(name.stem), suffix) if suffix in COMPRESSED else (name, None)
