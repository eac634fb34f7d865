"""The base class for formats of `framefleet export`, which write one shard of rows and clips."""

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
from framefleet.pipeline.errors import PluginError

if TYPE_CHECKING:
    from framefleet.api.commands import Watch
    from framefleet.api.outputs import Output
    from framefleet.plugins.export.selection import Selection

Feature = Literal["video", "image", "audio", "clip"]
FILES_COLUMN = re.compile("(.*_)?file_names?")  # columns whose values `datasets` opens as files


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    place: Store
    columns: tuple[str, ...]  # of each row
    added: frozenset[str]  # columns that the export added
    feature: Feature
    scratch: Path  # a folder for unfinished files
    copiers: ThreadPoolExecutor  # for shards of many files
    names: Mapping[str, str] = field(default_factory=dict)  # of clips, by row_id; if empty, see `file_names`
    prepared: Any = None  # returned by the format's `prepare`


class ShardWriter(ABC):
    """One shard. Readers of the dataset see nothing of it until it is finished.

    A subclass sets `self.writer` to what writes the file at the path `self.file`; `finish` closes it.
    """

    read_by: ClassVar[str] = ""  # how to read it; printed by `framefleet export`

    def __init__(self, target: Target, name: str) -> None:
        """Start the shard. name: e.g. shard-000000, or train-000000 with splits."""
        self.target, self.name = target, name
        self.file = target.scratch / name  # its last file, until the shard is finished
        self.writer: Any = None  # of that file, opened by the first write

    @classmethod
    def prepare(cls, selection: Selection, output: Output, options: Mapping[str, Any], watch: Watch) -> Any:
        """Narrow the selection before it is split into shards. The result becomes `target.prepared`.

        output: as it was when the export began. options: storage_options. Raises JobError for rows that the
        format cannot contain.
        """
        return None

    @classmethod
    def complete(
        cls, selection: Selection, target: Target, lost: Collection[str | None], watch: Watch
    ) -> None:
        """Write files about all shards, once these are finished. lost: row_ids of damaged clips."""
        return None

    @staticmethod
    @abstractmethod
    def path_of(name: str) -> str:
        """Return the path of the finished shard, or of its last file."""

    @abstractmethod
    def add(self, rows: pa.Table, clips: Sequence[bytes]) -> None:
        """Add rows, with all columns of the records, and their clips."""

    def add_files(self, rows: pa.Table, files: Sequence[Sequence[bytes]]) -> None:
        """Add rows with their files: a clip each, and a file of arrays after `Selection.with_extras`."""
        self.add(rows, [clip for clip, *_ in files])

    def finish(self) -> None:
        """Finish the shard, and make it visible to readers."""
        if self.writer is None:
            problem = f"`add` of {type(self).__module__}:{type(self).__name__} has set no `self.writer`"
            raise PluginError(problem, "have it set what writes `self.file`, or override `finish`")
        self.writer.close()
        self.target.place.upload(self.path_of(self.name), self.file)
        self.file.unlink()


def file_names(rows: pa.Table) -> list[str]:
    """Return the file names of the rows' clips: the row_id with the format's ending."""
    records = rows.select(["row_id", "path", "uri"]).to_pylist()
    return [row["row_id"] + "".join(PurePosixPath(row["path"] or row["uri"]).suffixes) for row in records]


def own_columns(rows: pa.Table, columns: Sequence[str], *, taken: Sequence[str]) -> pa.Table:
    """Return the columns to export, with types that `datasets` supports.

    If the format itself needs the name of a column, the column gets the suffix `_of_row`.
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
    """Return the column names that `datasets` reserves in a folder of clips."""
    return [feature, *filter(FILES_COLUMN.fullmatch, columns)]


def readable_type(kind: pa.DataType) -> pa.DataType:
    """Return a type that `datasets` supports for the same values. It has no maps and no extension types."""
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
    if pa.types.is_list(kind):
        return pa.list_(readable_type(kind.value_type))
    is_short = pa.types.is_decimal32(kind) or pa.types.is_decimal64(kind)
    return pa.decimal128(kind.precision, kind.scale) if is_short else kind
