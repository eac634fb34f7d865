"""A render job's output as a dataset: its records are the table, its clips the videos."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

import pyarrow as pa

from framefleet.pipeline.guards.json_text import parse_json
from framefleet.pipeline.outputs.parts.records import RECORDS
from framefleet.pipeline.rows.tables.table import folder_of

VIDEO, ARGUMENTS = "uri", "arguments"  # columns
_CLIP = re.compile(r".*/(clips/[0-9a-f]{2}/[^/]+)", re.DOTALL)


def is_records(schema: pa.Schema) -> bool:
    """Tell whether a table is what a render job wrote about its clips."""
    return {"row_id", "frames_sha256", VIDEO, ARGUMENTS} <= set(schema.names)


def table_folder(location: str, schema: pa.Schema) -> str:
    """Return the folder that paths of a table are relative to, for `Inputs`: of records, the whole output."""
    folder = folder_of(location)
    return folder.rstrip("/").rpartition("/")[0] if _is_in_output(folder, schema) else folder


def clips(cells: list[Any], location: str, schema: pa.Schema) -> list[Any]:
    """Return where the clips of records lie in their output, which may have been moved since."""
    if not _is_in_output(folder_of(location), schema):
        return cells
    found = [_CLIP.fullmatch(cell) if isinstance(cell, str) else None for cell in cells]
    return [match[1] if match else cell for match, cell in zip(found, cells, strict=True)]


def recorded_prompts(text: str | None, names: Collection[str]) -> dict[str, Any]:
    """Return the prompts in a record's arguments. What else is there was maybe another model's default."""
    try:
        found = parse_json(text or "")
    except ValueError:  # the table may be from anywhere
        return {}
    arguments = found.items() if isinstance(found, dict) else ()
    return {
        name: _storable(value) for name, value in arguments if name.startswith("prompt") and name in names
    }


def _storable(value: Any) -> Any:
    """Return text without lone surrogates, which JSON can spell and no column of text can hold."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


def _is_in_output(folder: str, schema: pa.Schema) -> bool:
    parent, _, name = folder.rstrip("/").rpartition("/")
    return is_records(schema) and name == RECORDS and bool(parent)
