"""A render job's output as a dataset: its records are the table, its clips the videos."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

import pyarrow as pa

from framefleet.pipeline.guards.json_text import parse_json
from framefleet.pipeline.outputs.layout import RECORDS
from framefleet.pipeline.outputs.parts.records import are_records
from framefleet.pipeline.rows.tables.table import folder_of

VIDEO, PATH, ARGUMENTS = "uri", "path", "arguments"  # columns
_CLIP = re.compile(r".*/(clips/[0-9a-f]{2}/[^/]+)", re.DOTALL)  # of records that have no path


def table_folder(location: str, schema: pa.Schema) -> str:
    """Return the folder that paths of a table are relative to, for `Inputs`: of records, the whole output."""
    folder = folder_of(location)
    return folder.rstrip("/").rpartition("/")[0] if _is_in_output(folder, schema) else folder


def clip_columns(schema: pa.Schema) -> list[str]:
    """Return the columns that say where clips are."""
    return [name for name in (VIDEO, PATH) if name in schema.names]


def clips(batch: pa.RecordBatch, location: str, schema: pa.Schema) -> list[Any]:
    """Return where the clips of records lie in their output, which may have been moved since."""
    uris: list[Any] = batch.column(VIDEO).to_pylist()
    if not _is_in_output(folder_of(location), schema):
        return uris
    paths = batch.column(PATH).to_pylist() if PATH in batch.schema.names else [None] * len(uris)
    return [_path_in(uri) if path is None else path for path, uri in zip(paths, uris, strict=True)]


def _path_in(uri: Any) -> Any:
    found = _CLIP.fullmatch(uri) if isinstance(uri, str) else None
    return found[1] if found else uri


def with_prompts(text: str | None, row: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    """Return what a record gives of these arguments: its prompts, and what it carries.

    Other arguments, whose columns are in `row` too, were maybe another model's defaults. text: of its
    arguments.
    """
    try:
        found = parse_json(text or "")
    except ValueError:  # the table may be from anywhere
        found = None
    arguments = found if isinstance(found, dict) else {}
    prompts = {name: _storable(value) for name, value in arguments.items() if name.startswith("prompt")}
    carried = {name: cell for name, cell in row.items() if name not in arguments}
    edited = {name: row[name] for name in prompts if row.get(name) is not None}
    return {name: value for name, value in (prompts | carried | edited).items() if name in names}


def _storable(value: Any) -> Any:
    """Return text without lone surrogates, which JSON can spell and no column of text can hold."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


def _is_in_output(folder: str, schema: pa.Schema) -> bool:
    parent, _, name = folder.rstrip("/").rpartition("/")
    return are_records(schema) and name == RECORDS and bool(parent)
