"""From one Parquet, CSV, TSV or JSONL file to its schema and its record batches in order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO, Any, Literal
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet

from framefleet.pipeline.errors import TableError
from framefleet.pipeline.specs.signature import Kind

Format = Literal["parquet", "csv", "tsv", "jsonl"]
FORMATS: dict[str, Format] = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
}
_JSON_TYPES = {
    "str": pa.string(),
    "int": pa.int64(),
    "float": pa.float64(),
    "bool": pa.bool_(),
    "image": pa.string(),
    "video": pa.string(),
    "model": pa.string(),
    None: pa.string(),
}
_COMPRESSED = (".gz", ".bz2", ".xz")


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One file of a table."""

    filesystem: Any  # fsspec has no types
    path: str
    format: Format | None


def file_format(path: str) -> Format | None:
    """Return what the name says that the file is; None when it is no table."""
    name = PurePosixPath(urlsplit(path).path if "://" in path else path)
    compressed = name.suffix.lower() in _COMPRESSED
    found = FORMATS.get((PurePosixPath(name.stem) if compressed else name).suffix.lower())
    return None if compressed and found == "parquet" else found


def read_schema(source: Source, arguments: Mapping[str, Kind]) -> tuple[pa.Schema, int | None]:
    """Return the schema and, for Parquet, the number of rows.

    arguments: columns whose cells are checked later, with the kind that they should have.
    """
    with _opened(source) as file, _explained(source):
        if source.format == "parquet":
            metadata = pa.parquet.read_metadata(file)
            return metadata.schema.to_arrow_schema().remove_metadata(), metadata.num_rows
        schema = _text_reader(source, file, None).schema
        return pa.schema([_settled(field, source, arguments) for field in schema]), None


def open_batches(
    source: Source, schema: pa.Schema, *, batch_rows: int, first_row: int
) -> Iterator[pa.RecordBatch]:
    """Yield the file's batches with the columns of `schema`. first_row: of the table, for messages."""
    seen = first_row
    with _opened(source) as file:
        reader = _reader(source, schema, file, batch_rows=batch_rows)
        while True:
            with _explained(source, after_row=seen):
                batch = next(reader, None)
            if batch is None:
                return
            seen += batch.num_rows
            yield batch


def _reader(
    source: Source, schema: pa.Schema, file: IO[bytes], *, batch_rows: int
) -> Iterator[pa.RecordBatch]:
    if source.format == "parquet":
        # pre_buffer reads whole row groups ahead: a file written in one row group would be all in memory
        parquet = pa.parquet.ParquetFile(file, pre_buffer=False, buffer_size=1 << 20)
        yield from parquet.iter_batches(batch_rows, use_threads=False)
        return
    reader = _text_reader(source, file, schema)
    if sorted(reader.schema.names) != sorted(schema.names):
        raise TableError(
            f"{source.path} has the columns {reader.schema.names}, and the first file {schema.names}",
            "write all files of a table with the same columns",
        )
    for batch in reader:
        yield batch.select(schema.names)


def _text_reader(source: Source, file: IO[bytes], schema: pa.Schema | None) -> Any:
    """Return a streaming reader of CSV, TSV or JSONL; `schema` fixes the types, or else they are inferred."""
    if source.format == "jsonl":
        # a key that the first megabyte did not have would be dropped without a word
        behaviour = "error" if schema else "infer"
        parse = pa.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior=behaviour)
        return pa.json.open_json(file, parse_options=parse)
    return pa.csv.open_csv(
        file,
        read_options=pa.csv.ReadOptions(use_threads=False),  # only then do its errors name the row
        parse_options=pa.csv.ParseOptions(
            delimiter="\t" if source.format == "tsv" else ",", newlines_in_values=True
        ),
        # an empty cell is null, a quoted one is empty text
        convert_options=pa.csv.ConvertOptions(
            column_types=schema,
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        ),
    )


def _settled(field: pa.Field, source: Source, arguments: Mapping[str, Kind]) -> pa.Field:
    """Return the field with a type that later cells will fit."""
    kind = arguments.get(field.name)
    if pa.types.is_null(field.type) or (kind and source.format != "jsonl"):
        return field.with_type(pa.string() if source.format != "jsonl" else _JSON_TYPES[kind])
    if kind == "float" and pa.types.is_integer(field.type):
        return field.with_type(pa.float64())  # 5 now, 7.5 a megabyte later
    if kind == "str" and pa.types.is_timestamp(field.type):
        return field.with_type(pa.string())  # a prompt that looks like a date
    return field


@contextmanager
def _opened(source: Source) -> Iterator[IO[bytes]]:
    with source.filesystem.open(source.path, "rb", compression="infer") as file:
        yield file


@contextmanager
def _explained(source: Source, after_row: int | None = None) -> Iterator[None]:
    """Turn Arrow's errors into TableError with the file and where in it."""
    try:
        yield
    except (pa.ArrowException, EOFError, OSError) as error:
        where = f" after row {after_row}" if after_row else ""
        fixes: dict[Format | None, str] = {
            "jsonl": "every line must be one JSON object with the same keys, each of one type",
            "parquet": "write the file again; it may be cut short",
        }
        csv = "rows count from 1 with the header; quote cells that hold commas, quotes or line breaks"
        raise TableError(
            f"{source.path} cannot be read{where}: {error}", fixes.get(source.format, csv)
        ) from error
