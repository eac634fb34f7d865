"""From the folders of a table's files to the columns that their names hold, as Hive, Spark and pandas write.

`prompts/style=oil/seed=7/part-0.parquet` has the columns style and seed, which are nowhere in the file. Their
types are found as those of CSV are. Tables of Delta Lake, Iceberg, Lance and Hudi, and what `save_to_disk` of
`datasets` writes, are refused: which of their files and rows count is written elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc

from framefleet.pipeline.errors import TableError
from framefleet.pipeline.rows.tables.row_cells import ODD_CELLS
from framefleet.pipeline.rows.tables.table_files import TableFile
from framefleet.pipeline.rows.tables.text_reading import type_of, typed_cells

_NULL = "__HIVE_DEFAULT_PARTITION__"
# Files by which tables of other kinds are recognised.
_LAKES = {
    "table of Delta Lake": re.compile(r"/_delta_log/[^/]*\.json$"),
    "table of Lance": re.compile(r"/_versions/[^/]*\.manifest$"),
    "table of Iceberg": re.compile(r"/metadata/[^/]*\.metadata\.json$"),
    "table of Hudi": re.compile(r"/\.hoodie/hoodie\.properties$"),
    "dataset of `save_to_disk`": re.compile(r"/dataset_info\.json$"),
}
_MARKERS = ("_delta_log", "_versions", "metadata", ".hoodie")  # folders of these files


def with_partitions(sources: Sequence[TableFile], root: str) -> tuple[TableFile, ...]:
    """Return the files with the values of their folders' names, arguments as text. Raises TableError."""
    texts = [_texts(source.path, root) for source in sources]
    for source, own in zip(sources, texts, strict=True):
        if [*own] != [*texts[0]]:
            first, other = (", ".join(map(repr, one)) or "no columns" for one in (texts[0], own))
            raise TableError(
                f"{sources[0].path} is in folders of {first}, {source.path} of {other}",
                "name folders of all files after the same columns, in one order, as style=oil/seed=7",
            )
    if not texts[0]:
        return tuple(sources)
    columns: dict[str, pa.Array] = {}
    for name in texts[0]:
        cells = pa.array([own[name] for own in texts], pa.string())
        kind = pa.string() if name in sources[0].arguments else type_of(cells.unique())
        columns[name] = typed_cells(cells, kind)[0]
    return tuple(
        replace(source, partition={name: column[number] for name, column in columns.items()})
        for number, source in enumerate(sources)
    )


def _texts(path: str, root: str) -> dict[str, str | None]:
    """Return the values by column, of the folders between the table's and a file."""
    plain = path.partition("?")[0] if "://" in path else path  # folders may have names with a question mark
    pairs: list[tuple[str, str | None]] = []
    for folder in PurePosixPath(plain).parts[len(PurePosixPath(root).parts) : -1]:
        try:
            name, equals, value = (unquote(part, errors="strict") for part in folder.partition("="))
            folder.encode()
        except UnicodeError:
            problem = f"{path!r}: the name of its folder {folder!r} is not UTF-8"
            raise TableError(problem, "rename the folder") from None
        if name and equals:
            pairs.append((name, None if value == _NULL else value))
    names = [name for name, _ in pairs]
    if doubled := [name for name in names if names.count(name) > 1]:
        raise TableError(f"{path} has two folders for the column {doubled[0]!r}", "rename one of them")
    return dict(pairs)


def with_own_columns(batch: pa.RecordBatch, source: TableFile) -> pa.RecordBatch:
    """Add the partition's values as columns. TableError where the file has one with another value."""
    columns = dict(zip(batch.schema.names, batch.columns, strict=True))
    odd = columns.pop(ODD_CELLS, None)
    for name, value in source.partition.items():
        if name not in columns:
            columns[name] = pa.repeat(value, batch.num_rows)
        elif not _is_all(columns[name], value):
            problem = f"{source.path} has rows whose column {name!r} is not {value}, as its folder says"
            raise TableError(problem, "write the table again, without that column in the files")
    columns |= {} if odd is None else {ODD_CELLS: odd}
    return pa.RecordBatch.from_arrays([*columns.values()], names=[*columns])


def _is_all(cells: pa.Array, value: pa.Scalar) -> bool:
    try:
        wanted = value.cast(cells.type)
    except pa.ArrowException:
        return False
    if not wanted.is_valid:
        return bool(cells.null_count == len(cells))
    return cells.null_count == 0 and pc.all(pc.equal(cells, wanted)).as_py() is not False


def check_lake_folders(filesystem: Any, folders: Iterable[str], location: str) -> None:
    """Raise TableError where a folder, or the one above a folder `data`, is a table of another kind."""
    for folder in dict.fromkeys(part for one in folders for part in (one, one.removesuffix("/data"))):
        names = _names_in(filesystem, folder)
        files = [f"{folder}/{name}" for name in names]
        for marker in names.intersection(_MARKERS):
            files += [f"{folder}/{marker}/{name}" for name in _names_in(filesystem, f"{folder}/{marker}")]
        check_lake_files(filesystem, files, location)


def check_lake_files(filesystem: Any, files: Sequence[str], location: str) -> None:
    """Raise TableError where one of these files is of Delta Lake, Iceberg, Lance, Hudi or `datasets`."""
    for kind, pattern in _LAKES.items():
        if marker := next(filter(pattern.search, files), None):
            url = filesystem.unstrip_protocol(pattern.sub("", marker)).removeprefix("file://")
            where = "" if location.rstrip("/") == url else f"{location}: "
            raise TableError(
                f"{where}{url} is a {kind}, whose files also hold rows that do not count",
                "read it with its own library, and pass it in Python: framefleet.render(job, table=...); "
                "or write its rows as Parquet",
            )


def _names_in(filesystem: Any, folder: str) -> set[str]:
    try:
        return {PurePosixPath(name).name for name in filesystem.ls(folder, detail=False)}
    except (OSError, NotImplementedError):  # there is no such folder, or the store cannot list
        return set()
