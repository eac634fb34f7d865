"""Rows and clips as a folder that `datasets.load_dataset` opens: files, and `metadata.parquet` about them."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from framefleet.jobs.export.shard import Feature, Target, file_names, own_columns
from framefleet.pipeline.errors import JobError

# Of these the library makes clips.
_FILE_NAME = re.compile("(.*_)?file_names?")


def check_folder(endings: frozenset[str], feature: Feature, columns: pa.Schema) -> None:
    """Raise JobError for clips of which `load_dataset` does not make one feature, and for others' files."""
    if feature == "clip" or ".webm" in endings:  # which it takes for sound
        raise JobError(
            f"datasets cannot read a folder of clips that end in {' and '.join(sorted(endings))}",
            "use --format parquet or webdataset; or choose clips of one format with --where",
        )

    for column in columns:
        if _names_files(column.type):  # by itself it is renamed
            raise JobError(
                f"column {column.name!r} has fields that datasets takes for names of files",
                "leave it out with --columns",
            )


def _names_files(kind: pa.DataType) -> bool:
    """Return whether a field in a struct, at any depth, has a name by which the library opens files."""
    inner = [kind.field(number) for number in range(kind.num_fields)]
    return any(_FILE_NAME.fullmatch(field.name) or _names_files(field.type) for field in inner)


class FolderShard:
    """Clips go first, then `metadata.parquet`: until it is there, nothing names them."""

    def __init__(self, target: Target, name: str) -> None:
        self._target, self._name = target, name
        self._file = target.scratch / "metadata.parquet"
        self._writer: pq.ParquetWriter | None = None

    @staticmethod
    def path_of(name: str) -> str:
        return f"{_folder(name)}/metadata.parquet"

    def add(self, rows: pa.Table, clips: Sequence[bytes]) -> None:
        target, names = self._target, file_names(rows)
        paths = [f"{_folder(self._name)}/{name}" for name in names]
        list(target.copiers.map(target.place.write, paths, clips))
        taken = [target.feature, *filter(_FILE_NAME.fullmatch, target.columns)]
        table = own_columns(rows, target.columns, taken=taken)
        table = table.add_column(0, "file_name", pa.array(names))
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._file, table.schema, compression="zstd")
        self._writer.write_table(table)

    def finish(self) -> None:
        assert self._writer is not None
        self._writer.close()
        self._target.place.upload(self.path_of(self._name), self._file)
        self._file.unlink()


def _folder(name: str) -> str:
    """Return data/000000, or data/train/000000: `datasets` reads the split from the path."""
    split, _, number = name.partition("-")
    return f"data/{number}" if split == "shard" else f"data/{split}/{number}"
