"""Rows as a Parquet file with their clips in it: structs `{bytes, path}`, as `datasets` has them."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from framefleet.jobs.export.shard import Target, file_names, own_columns

_CLIP = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


class ParquetShard:
    """A row group is what is added at one time. `datasets` and the hub show the clips by their feature."""

    def __init__(self, target: Target, name: str) -> None:
        self._target, self._name = target, self.path_of(name)
        self._file = target.scratch / self._name
        self._writer: pq.ParquetWriter | None = None

    @staticmethod
    def path_of(name: str) -> str:
        return f"{name}.parquet"

    def add(self, rows: pa.Table, clips: Sequence[bytes]) -> None:
        feature = self._target.feature
        paths = file_names(rows)
        cells = pa.StructArray.from_arrays(
            [pa.array(clips, pa.binary()), pa.array(paths)], fields=list(_CLIP)
        )
        table = own_columns(rows, self._target.columns, taken=[feature])
        table = table.append_column(pa.field(feature, _CLIP), cells)
        if self._writer is None:
            self._writer = pq.ParquetWriter(
                self._file,
                table.schema.with_metadata(_said(feature)),
                compression={name: "zstd" for name in _leaves(table.schema)} | {f"{feature}.bytes": "none"},
                use_dictionary=[name for name in table.column_names if name != feature],
            )
        self._writer.write_table(table, row_group_size=len(table))

    def finish(self) -> None:
        assert self._writer is not None
        self._writer.close()
        self._target.place.upload(self._name, self._file)
        self._file.unlink()


def _leaves(schema: pa.Schema) -> list[str]:
    """Return the columns as Parquet names them, nested ones by their leaves."""
    parquet = pq.ParquetFile(_empty(schema)).schema
    return [parquet.column(index).path for index in range(len(parquet))]


def _empty(schema: pa.Schema) -> pa.BufferReader:
    sink = pa.BufferOutputStream()
    pq.write_table(schema.empty_table(), sink)
    return pa.BufferReader(sink.getvalue())


def _said(feature: str) -> dict[str, str]:
    """Return the metadata from which `datasets` knows that a struct is a video."""
    features = {} if feature == "clip" else {feature: {"_type": feature.capitalize()}}
    return {"huggingface": json.dumps({"info": {"features": features}})}
