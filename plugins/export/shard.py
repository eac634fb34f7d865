"""From a selection to shards: planned first, and held against what another run planned; then written.

A place that an export goes to has `.framefleet/export.json`: hidden from readers of data, and written before
the first shard. Shards follow from it, so a run that was killed is taken up where it was. A shard takes rows
with their clips: a tar, a Parquet file or a folder, there when it is finished.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import math
import re
import tarfile
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import date, datetime, time
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import TypeAdapter

import framefleet
from framefleet.pipeline.errors import JobError, StoreConflict, names_text
from framefleet.pipeline.outputs.layout import RECORDS, recorded_path
from framefleet.pipeline.outputs.parts.parts import rows_of
from framefleet.pipeline.outputs.parts.seals import SEALED, Part, is_sealed, live_parts, sealed_of
from framefleet.pipeline.outputs.stores.store import Store, read_json
from framefleet.plugins.export.choice import ExportChoice
from framefleet.plugins.export.labels import CAPTION, prompt_of
from framefleet.plugins.export.selection import Selection, Split

NOTES = ".framefleet"
_PLAN = f"{NOTES}/export.json"
_OTHER = "choose another place, or empty this one"
_DESCRIPTION = TypeAdapter(dict[str, Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedShard:
    name: str  # the split and its number in that, e.g. train-000000; shard-000000 where split is None
    split: Split | None
    num_rows: int
    num_bytes: int
    sha256: str  # over their row_ids and digests


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportPlan:
    """shards: in their order. endings: of the clips' names, as ".mp4"."""

    shards: tuple[PlannedShard, ...]
    endings: frozenset[str]

    @property
    def num_rows(self) -> int:
        return sum(shard.num_rows for shard in self.shards)

    @property
    def num_bytes(self) -> int:
        return sum(shard.num_bytes for shard in self.shards)


def plan_of(selection: Selection) -> ExportPlan:
    """Read the records once; what a shard is depends on nothing else. Raises JobError if none is chosen."""
    shards, endings = [], set()
    of_split: Counter[Split | None] = Counter()
    for _, pieces in groupby(selection.pieces(), key=lambda piece: piece.shard):
        num_rows, num_bytes, digest = 0, 0, hashlib.sha256()
        for piece in pieces:
            piece.digest(digest)
            rows = piece.rows.select(["row_id", "uri", "path", "bytes"]).to_pylist()
            num_rows, num_bytes = num_rows + len(rows), num_bytes + sum(row["bytes"] for row in rows)
            endings |= {"".join(PurePosixPath(recorded_path(row, RECORDS)).suffixes) for row in rows}
            split = piece.split
        shards.append(
            PlannedShard(
                name=f"{split or 'shard'}-{of_split[split]:06}",
                split=split,
                num_rows=num_rows,
                num_bytes=num_bytes,
                sha256=digest.hexdigest(),
            )
        )
        of_split[split] += 1
    if not shards:
        raise selection.nothing_chosen()
    return ExportPlan(shards=tuple(shards), endings=frozenset(endings))


def parts_to_export(store: Store, place: Store) -> tuple[list[Part], int]:
    """Return the parts of records that there are; of an export that was begun, those that there were then.

    And how many have newer rows.
    """
    parts = live_parts(store)
    try:
        then = SEALED.validate_python(read_json(place, _PLAN, _DESCRIPTION, fix=_OTHER).get("parts"))
    except (FileNotFoundError, ValueError):  # none was begun, or what it says is not a list of parts
        return parts, 0
    exported = [part for part in parts if is_sealed(part, then)]
    if sealed_of(exported) != then:
        raise JobError(
            f"{place.url_of('')} holds an export that was begun with parts of records that are gone since, "
            "e.g. merged by `framefleet compact`",
            _OTHER,
        )
    return exported, len(parts) - len(exported)


def claim_place(
    place: Store, choice: ExportChoice, plan: ExportPlan, parts: Sequence[Part], columns: Sequence[str]
) -> None:
    """Make an empty place this export's, unless it is already. Raises JobError for another's.

    columns: those of its shards: there are more once an output has been scored.
    """
    rows = hashlib.sha256("".join(shard.sha256 for shard in plan.shards).encode()).hexdigest()
    ours = choice.description() | {"num_rows": plan.num_rows, "rows": rows, "shard_columns": [*columns]}
    try:
        theirs = read_json(place, _PLAN, _DESCRIPTION, fix=_OTHER)
    except FileNotFoundError:
        if place.list(""):
            raise JobError(f"{place.url_of('')} holds other files", _OTHER) from None
        theirs = ours
        description = ours | {"parts": sealed_of(parts), "framefleet": framefleet.__version__}
        content = json.dumps(description, indent=2, ensure_ascii=False)
        try:
            place.create(_PLAN, content.encode() + b"\n")
        except StoreConflict:  # another run was quicker
            theirs = read_json(place, _PLAN, _DESCRIPTION, fix=_OTHER)
    theirs = {"shard_columns": [*columns], **theirs}  # which those begun earlier do not say
    if differing := [name for name, value in ours.items() if theirs.get(name) != value]:
        compared = "; ".join(
            f"{name} {_difference(theirs.get(name), ours[name])}" for name in differing if name != "rows"
        )
        raise JobError(
            f"{place.url_of('')} holds an export of something else: "
            + (compared or "the output has other clips now"),
            _OTHER,
        )


def _difference(there: Any, here: Any) -> str:
    if isinstance(there, list) and isinstance(here, list):
        return f"differ by {names_text(sorted({*map(str, there)} ^ {*here}))}"
    return f"is {_shown(there)} there and {_shown(here)} here"


def _shown(value: Any) -> str:
    return "unset" if value is None else str(value)


Feature = Literal["video", "image", "audio", "clip"]
# As the `datasets` library sorts endings; clip: several, or what it has no name for.
_FEATURES: dict[Feature, frozenset[str]] = {
    "video": frozenset({".mp4", ".mkv", ".webm"}),
    "image": frozenset({".png", ".webp", ".gif"}),
    "audio": frozenset({".flac", ".wav"}),
}
# Of these the library makes clips.
_FILE_NAME = re.compile("(.*_)?file_names?")
_CLIP = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    place: Store
    columns: tuple[str, ...]  # of each row
    added: frozenset[str]  # those the export made
    feature: Feature
    scratch: Path  # a folder for what is under way
    copiers: ThreadPoolExecutor  # where a shard is many files
    names: Mapping[str, str] = field(default_factory=dict)  # of clips by row_id; else as `file_name` says


class ShardWriter(ABC):
    """One shard. Of one that is not finished no reader sees anything that it takes for data."""

    def __init__(self, target: Target, name: str) -> None:
        """Begin it. name: its split and number, e.g. shard-000000 or train-000000."""
        self._target, self._name = target, name
        self._file = target.scratch / name  # its last file, while it is under way
        self._writer: Any = None  # of the file, opened by whoever writes first

    @staticmethod
    @abstractmethod
    def path_of(name: str) -> str:
        """Return where it is, or its last file, when it is finished."""

    @abstractmethod
    def add(self, rows: pa.Table, clips: Sequence[bytes]) -> None:
        """Take rows, which have all columns that records may have, and the clip of each."""

    def finish(self) -> None:
        """Put it where readers look."""
        self._writer.close()
        self._target.place.upload(self.path_of(self._name), self._file)
        self._file.unlink()


def feature_of(endings: frozenset[str]) -> Feature:
    """Return what the clips are to the `datasets` library."""
    return next((feature for feature, of_it in _FEATURES.items() if endings <= of_it), "clip")


def file_names(rows: pa.Table) -> list[str]:
    """Return what the clips of rows are called: the row_id and the ending of its format."""
    records = rows.select(["row_id", "path", "uri"]).to_pylist()
    return [row["row_id"] + "".join(PurePosixPath(row["path"] or row["uri"]).suffixes) for row in records]


def own_columns(rows: pa.Table, columns: Sequence[str], *, taken: Sequence[str]) -> pa.Table:
    """Return the columns that are handed on, as types that `datasets` has.

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
    return [feature, *filter(_FILE_NAME.fullmatch, columns)]


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


def check_folder(endings: frozenset[str], feature: Feature, columns: pa.Schema) -> None:
    """Raise JobError for clips that `load_dataset` does not take as one feature, and for others' files."""
    if feature == "clip" or ".webm" in endings:  # which it takes for sound
        raise JobError(
            f"datasets cannot read a folder of clips that end in {' and '.join(sorted(endings))}",
            "use --format parquet or webdataset; or choose clips of one format with --where",
        )

    for column in columns:
        if _names_files(column.type):  # by itself it is renamed
            problem = f"column {column.name!r} has fields that datasets takes for names of files"
            raise JobError(problem, "leave it out with --columns")


def _names_files(kind: pa.DataType) -> bool:
    """Return whether a field in a struct, at any depth, has a name by which the library opens files."""
    inner = [kind.field(number) for number in range(kind.num_fields)]
    return any(_FILE_NAME.fullmatch(field.name) or _names_files(field.type) for field in inner)


class FolderShard(ShardWriter):
    """A folder that `datasets.load_dataset` opens: files, and `metadata.parquet` about them.

    Clips go first: until `metadata.parquet` is there, nothing names them.
    """

    @staticmethod
    def path_of(name: str) -> str:
        return f"{_folder(name)}/metadata.parquet"

    @staticmethod
    def _clips(name: str) -> str:
        """Return the folder of its clips."""
        return _folder(name)

    def add(self, rows: pa.Table, clips: Sequence[bytes]) -> None:
        target, folder = self._target, self._clips(self._name)
        names = [target.names.get(name.partition(".")[0], name) for name in file_names(rows)]
        paths = [f"{folder}/{name}" for name in names]
        list(target.copiers.map(target.place.write, paths, clips))
        table = own_columns(rows, target.columns, taken=taken_in_folder(target.feature, target.columns))
        # `load_dataset` makes Python's values of the cells of a folder.
        for name, column in zip(table.column_names, table.columns, strict=True):
            largest = pc.max(column).as_py() if pa.types.is_uint64(column.type) else None
            if largest is not None and largest >= 2**63:
                raise JobError(
                    f"column {name!r} holds {largest}, and datasets reads only numbers below 2**63 from a "
                    "folder",
                    "leave it out with --columns, or use --format parquet",
                )
        beside = PurePosixPath(self.path_of(self._name)).parent
        names = [str(PurePosixPath(path).relative_to(beside)) for path in paths]
        table = table.add_column(0, "file_name", pa.array(names))
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._file, table.schema, compression="zstd")
        self._writer.write_table(table)


def _folder(name: str) -> str:
    """Return data/000000, or data/train/000000: `datasets` reads the split from the path."""
    split, _, number = name.partition("-")
    return f"data/{number}" if split == "shard" else f"data/{split}/{number}"


class VBenchShard(FolderShard):
    """Clips called as VBench looks for them, all in one folder with nothing else in it, and a Parquet file.

    VBench takes the ending of all videos from any file of that folder.
    """

    @staticmethod
    def path_of(name: str) -> str:
        return f"{name}.parquet"

    @staticmethod
    def _clips(name: str) -> str:
        return "videos"


class ParquetShard(ShardWriter):
    """A Parquet file with the clips in it: structs `{bytes, path}`, as `datasets` has them.

    A row group is what is added at one time. `datasets` and the hub show the clips by their feature.
    """

    @staticmethod
    def path_of(name: str) -> str:
        return f"{name}.parquet"

    def add(self, rows: pa.Table, clips: Sequence[bytes]) -> None:
        feature = self._target.feature
        paths = file_names(rows)
        arrays = [pa.array(clips, pa.binary()), pa.array(paths)]
        cells = pa.StructArray.from_arrays(arrays, fields=list(_CLIP))
        table = own_columns(rows, self._target.columns, taken=[feature])
        table = table.append_column(pa.field(feature, _CLIP), cells)
        if self._writer is None:
            # Columns as Parquet names them, nested ones by their leaves.
            sink = pa.BufferOutputStream()
            pq.write_table(table.schema.empty_table(), sink)
            parquet = pq.ParquetFile(pa.BufferReader(sink.getvalue())).schema
            leaves = [parquet.column(index).path for index in range(len(parquet))]
            features = {} if feature == "clip" else {feature: {"_type": feature.capitalize()}}
            self._writer = pq.ParquetWriter(
                self._file,
                table.schema.with_metadata({"huggingface": json.dumps({"info": {"features": features}})}),
                compression=dict.fromkeys(leaves, "zstd") | {f"{feature}.bytes": "none"},
                use_dictionary=[name for name in table.column_names if name != feature],
            )
        self._writer.write_table(table, row_group_size=len(table))


class TarShard(ShardWriter):
    """A tar that the webdataset library reads: `<row_id>.mp4`, `.json`, `.txt` for each row.

    Members have no owner and no time: equal rows give equal bytes.
    """

    def __init__(self, target: Target, name: str) -> None:
        super().__init__(target, name)
        self._writer = tarfile.open(self._file, "w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115

    @staticmethod
    def path_of(name: str) -> str:
        return f"{name}.tar"

    def add(self, rows: pa.Table, clips: Sequence[bytes]) -> None:
        named_clips = zip(rows_of(rows, "records"), file_names(rows), clips, strict=True)
        for row, name, clip in named_clips:
            values = {column: row[column] for column in self._target.columns}
            self._write(name, clip)
            self._write(f"{row['row_id']}.json", json.dumps(_plain(values), ensure_ascii=False).encode())
            text = row[CAPTION] if CAPTION in self._target.added else prompt_of(row)
            self._write(f"{row['row_id']}.txt", text.encode("utf-8", "replace"))

    def _write(self, name: str, content: bytes) -> None:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        self._writer.addfile(member, io.BytesIO(content))


def _plain(value: Any) -> Any:
    """Return what JSON has of a cell: times as ISO 8601, bytes as base64, no number for what is none."""
    match value:
        case dict():
            return {key: _plain(inner) for key, inner in value.items()}
        case list() | tuple():
            return [_plain(inner) for inner in value]
        case float():
            return value if math.isfinite(value) else None
        case bytes():
            return base64.b64encode(value).decode()
        case datetime() | date() | time():
            return value.isoformat()
        case None | bool() | int() | str():
            return value
        case _:  # a decimal, a length of time
            return str(value)
