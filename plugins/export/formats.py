"""The built-in formats of `framefleet export`: tars, Parquet files, and folders for `datasets` or VBench."""

from __future__ import annotations

import base64
import io
import json
import math
import tarfile
from collections.abc import Sequence
from datetime import date, datetime, time
from pathlib import PurePosixPath
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from framefleet.api.errors import JobError
from framefleet.api.exports import ShardWriter, Target, file_names, own_columns
from framefleet.api.outputs import rows_of
from framefleet.plugins.export.labels import CAPTION, prompt_of
from framefleet.plugins.export.shard_writer import FILES_COLUMN, Feature, taken_in_folder

# How the `datasets` library classifies endings. clip: several classes, or none.
_FEATURES: dict[Feature, frozenset[str]] = {
    "video": frozenset({".mp4", ".mkv", ".webm"}),
    "image": frozenset({".png", ".webp", ".gif"}),
    "audio": frozenset({".flac", ".wav"}),
}
# Features that the library decodes.
_CLIP = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def feature_of(endings: frozenset[str]) -> Feature:
    """Return the feature that the `datasets` library has for these clips."""
    return next((feature for feature, of_it in _FEATURES.items() if endings <= of_it), "clip")


def check_folder(endings: frozenset[str], feature: Feature, columns: pa.Schema) -> None:
    """Raise JobError for clips that `load_dataset` cannot read as one feature, or columns that name files."""
    if feature == "clip" or ".webm" in endings:  # `datasets` treats .webm as sound
        raise JobError(
            f"datasets cannot read a folder of clips that end in {' and '.join(sorted(endings))}",
            "use --format parquet or webdataset, or choose clips of one format with --where",
        )

    for column in columns:
        if _names_files(column.type):  # `datasets` renames a column of this name by itself
            problem = f"column {column.name!r} has fields that datasets would read as file names"
            raise JobError(problem, "leave it out with --columns")


def _names_files(kind: pa.DataType) -> bool:
    """Return whether a struct has, at any depth, a field whose name makes the library open files."""
    inner = [kind.field(number) for number in range(kind.num_fields)]
    return any(FILES_COLUMN.fullmatch(field.name) or _names_files(field.type) for field in inner)


class FolderShard(ShardWriter):
    """A folder for `datasets.load_dataset`: files, and a `metadata.parquet` that describes them.

    The clips are written first, so nothing names them until `metadata.parquet` is there.
    """

    read_by = "read it with datasets.load_dataset"
    is_loaded: ClassVar[bool] = True  # by `datasets`

    @staticmethod
    def path_of(name: str) -> str:
        return f"{_folder(name)}/metadata.parquet"

    @staticmethod
    def _clips(name: str) -> str:
        """Return the folder of its clips."""
        return _folder(name)

    def add(self, rows: pa.Table, clips: Sequence[bytes]) -> None:
        target, folder = self.target, self._clips(self.name)
        names = [target.names.get(name.partition(".")[0], name) for name in file_names(rows)]
        paths = [str(PurePosixPath(folder, name)) for name in names]
        list(target.copiers.map(target.place.write, paths, clips))
        table = own_columns(rows, target.columns, taken=taken_in_folder(target.feature, target.columns))
        # `load_dataset` turns the cells of a folder into Python values.
        for name, column in zip(table.column_names, table.columns, strict=True):
            largest = pc.max(column).as_py() if pa.types.is_uint64(column.type) else None
            if self.is_loaded and largest is not None and largest >= 2**63:
                raise JobError(
                    f"column {name!r} holds {largest}, and datasets reads only numbers below 2**63 from a "
                    "folder",
                    "leave it out with --columns, or use --format parquet",
                )
        beside = PurePosixPath(self.path_of(self.name)).parent
        names = [str(PurePosixPath(path).relative_to(beside)) for path in paths]
        table = table.add_column(0, "file_name", pa.array(names))
        if self.writer is None:
            self.writer = pq.ParquetWriter(self.file, table.schema, compression="zstd")
        self.writer.write_table(table)


def _folder(name: str) -> str:
    """Return data/000000, or data/train/000000: `datasets` reads the split from the path."""
    split, _, number = name.partition("-")
    return f"data/{number}" if split == "shard" else f"data/{split}/{number}"


class NamedShard(FolderShard):
    """A folder of clips with readable names, and a Parquet file next to it."""

    read_by = "its Parquet files map clips to rows"
    is_loaded = False

    @staticmethod
    def path_of(name: str) -> str:
        return f"{name}.parquet"

    @staticmethod
    def _clips(name: str) -> str:
        return ""


class VBenchShard(NamedShard):
    """A folder with only clips, named as VBench expects, and a Parquet file next to it.

    VBench takes the ending of all clips from one arbitrary file in the folder.
    """

    read_by = "score it with `vbench evaluate --videos_path DEST/videos`"

    @staticmethod
    def _clips(name: str) -> str:
        return "videos"


class ParquetShard(ShardWriter):
    """A Parquet file that contains the clips, as structs `{bytes, path}` like those of `datasets`.

    Each `add` writes one row group. The feature lets `datasets` and the hub show the clips.
    """

    read_by = "read it with datasets.load_dataset, DuckDB, pandas"
    taken: ClassVar[Sequence[str]] = ()  # columns besides the clip

    @staticmethod
    def path_of(name: str) -> str:
        return f"{name}.parquet"

    def add(self, rows: pa.Table, clips: Sequence[bytes]) -> None:
        self.write_table(self.table_of(rows, clips))

    def table_of(self, rows: pa.Table, clips: Sequence[bytes]) -> pa.Table:
        arrays = [pa.array(clips, pa.binary()), pa.array(file_names(rows))]
        cells = pa.StructArray.from_arrays(arrays, fields=list(_CLIP))
        feature = self.target.feature
        table = own_columns(rows, self.target.columns, taken=[feature, *self.taken])
        return table.append_column(pa.field(feature, _CLIP), cells)

    def write_table(self, table: pa.Table) -> None:
        feature = self.target.feature
        if self.writer is None:
            # Parquet's names: those of the leaves for nested columns.
            sink = pa.BufferOutputStream()
            pq.write_table(table.schema.empty_table(), sink)
            parquet = pq.ParquetFile(pa.BufferReader(sink.getvalue())).schema
            leaves = [parquet.column(index).path for index in range(len(parquet))]
            features = {} if feature == "clip" else {feature: {"_type": feature.capitalize()}}
            self.writer = pq.ParquetWriter(
                self.file,
                table.schema.with_metadata({"huggingface": json.dumps({"info": {"features": features}})}),
                compression=dict.fromkeys(leaves, "zstd") | {f"{feature}.bytes": "none"},
                use_dictionary=[name for name in table.column_names if name != feature],
            )
        self.writer.write_table(table, row_group_size=len(table))


class TarShard(ShardWriter):
    """A tar for the webdataset library: `<row_id>.mp4`, `.json`, `.txt` for each row.

    Members have no owner and no time, so that equal rows give equal bytes.
    """

    read_by = "read it with webdataset.WebDataset"

    def __init__(self, target: Target, name: str) -> None:
        super().__init__(target, name)
        self.writer = tarfile.open(self.file, "w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115

    @staticmethod
    def path_of(name: str) -> str:
        return f"{name}.tar"

    def add(self, rows: pa.Table, clips: Sequence[bytes]) -> None:
        named_clips = zip(rows_of(rows, "records"), file_names(rows), clips, strict=True)
        for row, name, clip in named_clips:
            values = {column: row[column] for column in self.target.columns}
            self.write_member(name, clip)
            self.write_member(
                f"{row['row_id']}.json", json.dumps(plain_cell(values), ensure_ascii=False).encode()
            )
            text = row[CAPTION] if CAPTION in self.target.added else prompt_of(row)
            self.write_member(f"{row['row_id']}.txt", text.encode("utf-8", "replace"))

    def write_member(self, name: str, content: bytes) -> None:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        self.writer.addfile(member, io.BytesIO(content))


def plain_cell(value: Any) -> Any:
    """Return a cell as a JSON value: times as ISO 8601, bytes as base64, null for NaN and infinity."""
    match value:
        case dict():
            return {key: plain_cell(inner) for key, inner in value.items()}
        case list() | tuple():
            return [plain_cell(inner) for inner in value]
        case float():
            return value if math.isfinite(value) else None
        case bytes():
            return base64.b64encode(value).decode()
        case datetime() | date() | time():
            return value.isoformat()
        case None | bool() | int() | str():
            return value
        case _:  # e.g. a decimal or a duration
            return str(value)
