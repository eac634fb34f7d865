"""The base class of the formats of `framefleet export`: it writes one shard of rows and their clips."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import pyarrow as pa

from framefleet.api.errors import JobError
from framefleet.api.outputs import Store

if TYPE_CHECKING:
    from framefleet.api.commands import Watch
    from framefleet.api.outputs import Output
    from framefleet.plugins.export.selection import Selection

Feature = Literal["video", "image", "audio", "clip"]
FILES_COLUMN = re.compile("(.*_)?file_names?")  # names of columns whose values `datasets` opens as files


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    place: Store
    columns: tuple[str, ...]  # of each row
    added: frozenset[str]  # those the export made
    feature: Feature
    scratch: Path  # a folder for unfinished files
    copiers: ThreadPoolExecutor  # for shards of many files
    names: Mapping[str, str] = field(default_factory=dict)  # of clips by row_id; else as `file_name` says
    prepared: Any = None  # what the format's `prepare` returned


class ShardWriter(ABC):
    """One shard. Until it is finished, readers see nothing that they take for data."""

    read_by: ClassVar[str] = ""  # how to read it, which `framefleet export` prints

    def __init__(self, target: Target, name: str) -> None:
        """Begin the shard. name: its split and number, e.g. shard-000000 or train-000000."""
        self.target, self.name = target, name
        self.file = target.scratch / name  # its last file, until it is finished
        self.writer: Any = None  # of the file, opened by whoever writes first

    @classmethod
    def prepare(cls, selection: Selection, output: Output, options: Mapping[str, Any], watch: Watch) -> Any:
        """Narrow the selection before it is cut into shards; what is returned is `target.prepared`.

        output: as it was when the export began. options: storage_options. Raises JobError for rows that the
        format cannot have.
        """
        return None

    @classmethod
    def complete(
        cls, selection: Selection, target: Target, lost: Collection[str | None], watch: Watch
    ) -> None:
        """Write what is about all shards, once they are there. lost: row_ids of clips that are damaged."""
        return None

    @staticmethod
    @abstractmethod
    def path_of(name: str) -> str:
        """Return where the finished shard, or its last file, is."""

    @abstractmethod
    def add(self, rows: pa.Table, clips: Sequence[bytes]) -> None:
        """Add rows, which have all columns that records may have, with their clips."""

    def add_files(self, rows: pa.Table, files: Sequence[Sequence[bytes]]) -> None:
        """Add rows with their files: each a clip, and after `Selection.with_extras` a file of arrays."""
        self.add(rows, [clip for clip, *_ in files])

    def finish(self) -> None:
        """Finish the shard, and make it visible to readers."""
        self.writer.close()
        self.target.place.upload(self.path_of(self.name), self.file)
        self.file.unlink()


def file_names(rows: pa.Table) -> list[str]:
    """Return the file names of the rows' clips: the row_id with the format's ending."""
    records = rows.select(["row_id", "path", "uri"]).to_pylist()
    return [row["row_id"] + "".join(PurePosixPath(row["path"] or row["uri"]).suffixes) for row in records]


def own_columns(rows: pa.Table, columns: Sequence[str], *, taken: Sequence[str]) -> pa.Table:
    """Return the columns to export, with types that `datasets` has.

    One whose name the format needs for itself ends in `_of_row`.
    """
    names = own_names(columns, taken)
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise JobError(f"columns: two would be called {twice!r}", "leave one of them out with --columns")
    handed_on = rows.select(list(columns)).rename_columns(names)
    kinds = [readable_type(kind) for kind in handed_on.schema.types]
    return handed_on.cast(pa.schema(list(zip(names, kinds, strict=True))))


def own_names(columns: Sequence[str], taken: Collection[str]) -> list[str]:
    return [f"{name}_of_row" if name in taken else name for name in columns]


def taken_in_folder(feature: str, columns: Iterable[str]) -> list[str]:
    """Return the names that a folder of clips needs for itself, as `datasets` reads it."""
    return [feature, *filter(FILES_COLUMN.fullmatch, columns)]


def readable_type(kind: pa.DataType) -> pa.DataType:
    """Return a type that `datasets` has for the same values: it knows neither maps nor others' own types."""
    if isinstance(kind, pa.BaseExtensionType):
        return readable_type(kind.storage_type)
    if pa.types.is_map(kind):
        entry = pa.struct([("key", readable_type(kind.key_type)), ("value", readable_type(kind.item_type))])
        return pa.list_(entry)
    if pa.types.is_struct(kind):
        inner = (kind.field(number) for number in range(kind.num_fields))
        return pa.struct([field.with_type(readable_type(field.type)) for field in inner])
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(readable_type(kind.value_type), kind.list_size)
    if pa.types.is_large_list(kind):
        return pa.large_list(readable_type(kind.value_type))
    return pa.list_(readable_type(kind.value_type)) if pa.types.is_list(kind) else kind
