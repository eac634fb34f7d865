"""What is written about each row: the columns of records, failures and refused rows, as Arrow types."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, fields
from datetime import datetime
from typing import Any, get_args, get_type_hints

import pyarrow as pa

from framefleet.pipeline.errors import TableError, not_ours
from framefleet.pipeline.guards.json_text import canonical_json, parse_object
from framefleet.pipeline.guards.redaction import public_url
from framefleet.pipeline.outputs.layout import FAILURES, INVALID, RECORDS, ROWS
from framefleet.pipeline.request import each_input, quickly_pickled

ROW_ID, SHA256 = "^[0-9a-f]{32}$", re.compile("[0-9a-f]{64}")

ARROW_TYPES = {
    str: pa.string(),
    int: pa.int64(),
    float: pa.float64(),
    datetime: pa.timestamp("us", "UTC"),
    tuple[int, ...]: pa.list_(pa.int64()),
    tuple[str, ...]: pa.list_(pa.string()),
    bool: pa.bool_(),
}


@quickly_pickled
@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What is committed about one clip. JSON columns are canonical JSON text."""

    row_id: str
    row_indices: tuple[int, ...]  # every position in the table with this row_id
    uri: str
    media_sha256: str
    frames_sha256: str | None  # None, as all of frames: sound alone
    bytes: int
    height: int | None
    width: int | None
    num_frames: int | None
    fps: float | None  # None: an image
    duration_s: float | None
    arguments: str  # JSON
    seed: int
    scheduler: str | None  # None: the model's own
    recipe: str
    model: str
    model_digest: str
    numerics: str  # JSON
    environment: str  # JSON
    batch_size: float  # mean over the row's forwards
    attempt: int
    worker: str
    node: str
    started_at: datetime
    finished_at: datetime
    encode_s: float
    denoise_s: float
    decode_s: float
    write_s: float
    peak_memory_bytes: int | None  # None: not measured on this device
    # Below, what parts may lack: it has a default.
    frames_format: str | None = None  # "rgb uint8", "rgba uint8", "rgb float32", ...
    audio_sha256: str | None = None  # None, as all of sound: the clip has none
    audio_sample_rate: int | None = None
    audio_channels: int | None = None
    extra_outputs: str | None = None  # JSON: small values that the pipeline also returned
    extra_outputs_sha256: str | None = None  # of extras/<row_id>.safetensors, which has its arrays
    idle_s: float | None = None  # of the worker's model, since the worker's clip before
    idle_causes: str | None = None  # JSON: these seconds by what it waited for
    media_encoder: str | None = None  # gives equal frames other bytes; None: media_sha256 is repeatable
    path: str | None = None  # of the clip, relative to the output, which may be moved
    extra_outputs_path: str | None = None  # of the file of arrays next to it
    num_prompt_tokens: int | None = None  # as the text encoder's tokenizer counts them; None: unknown
    is_prompt_cut: bool | None = None  # whether the encoder did not read a prompt's end
    compute_s: float | None = None  # the row's share of the time that its worker's model was busy
    preview_path: str | None = None  # of a still of it: derived, so it may be missing or damaged
    fps_source: str | None = None  # "row", "job", "model", "sound" or "framefleet"; None: an image
    audio_duration_s: float | None = None
    license: str | None = None  # of the model's weights; "unknown" where nobody says
    model_name: str | None = None  # in the job's `models`; None: the job has one model
    marked_sha256: str | None = None  # of the frames in the file, if file steps changed them
    marked_audio_sha256: str | None = None  # of the sound, likewise
    # Of the second clip that a file step made from this one; None: there is none.
    derived_path: str | None = None  # relative to the output
    derived_sha256: str | None = None
    derived_bytes: int | None = None
    derived_height: int | None = None
    derived_width: int | None = None
    derived_num_frames: int | None = None
    derived_fps: float | None = None
    embed: str | None = None  # what its file says about the row, as `media.embed`; None: as version 0.1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureRecord:
    """What is known about a row that was given up on."""

    row_id: str
    row_indices: tuple[int, ...]
    error_type: str
    message: str
    traceback: str
    attempts: int
    arguments: str  # JSON
    seed: int
    scheduler: str | None
    recipe: str
    model: str
    workers: tuple[str, ...]  # where it was tried
    failed_at: datetime


def fields_from(kind: type) -> pa.Schema:
    """Return the columns of a dataclass whose fields are of `ARROW_TYPES`, or None."""
    hints = get_type_hints(kind)
    columns = []
    for name in (field.name for field in fields(kind)):
        is_nullable = type(None) in get_args(hints[name])
        hint = get_args(hints[name])[0] if is_nullable else hints[name]
        columns.append(pa.field(name, ARROW_TYPES[hint], nullable=is_nullable))
    return pa.schema(columns)


RECORD_FIELDS: pa.Schema = fields_from(Record)
# Every part of records has these. A part may lack others, which are null then.
FIRST_FIELDS = pa.schema([RECORD_FIELDS.field(f.name) for f in fields(Record) if f.default is MISSING])
FAILURE_FIELDS: pa.Schema = fields_from(FailureRecord)
ROW_FIELDS = pa.schema([("row_index", pa.int64()), ("row_id", pa.string())])
INVALID_FIELDS = pa.schema([("row_index", pa.int64()), ("reason", pa.string()), ("fix", pa.string())])
_DIGESTS = [name for name in RECORD_FIELDS.names if name.endswith("_sha256") or name == "model_digest"]


def fields_named(fields: pa.Schema, *names: str) -> pa.Schema:
    """Return some of the fields, in this order."""
    return pa.schema([fields.field(name) for name in names])


def plain_name(name: str) -> str:
    """Return a column's name without case, which SQL and Delta Lake ignore."""
    return name.casefold()


def are_records(schema: pa.Schema) -> bool:
    """Return whether a table is what a render job wrote about its clips."""
    return {"row_id", "frames_sha256", "uri", "arguments"} <= set(schema.names)


NO_ARGUMENTS = NO_COLUMNS = pa.schema([])
# Metadata of a column of a part of records whose values `scores/` may add, or replace.
MAY_COME_LATER = {b"framefleet.score": b"1"}
DIGEST = b"framefleet.digest"  # likewise: the digest of what its values come from, e.g. a question


def column_digest(column: pa.Field) -> bytes:
    """Return the digest of what a column's values come from; b"" if it has none."""
    return (column.metadata or {}).get(DIGEST, b"")


def record_schema(
    carried: pa.Schema, arguments: pa.Schema = NO_ARGUMENTS, added: pa.Schema = NO_COLUMNS
) -> pa.Schema:
    """Return the columns of `records/`, `added` by file steps too. TableError if a name is in two."""
    schema = _with_ours([*carried, *added, *arguments], RECORD_FIELDS, RECORDS)
    return pa.schema([added.field(field.name) if field.name in added.names else field for field in schema])


def may_come_later(field: pa.Field) -> bool:
    """Return whether `scores/` may add or replace the values of a column of a part of records."""
    return MAY_COME_LATER.keys() <= (field.metadata or {}).keys()


def failure_schema(carried: pa.Schema, arguments: pa.Schema = NO_ARGUMENTS) -> pa.Schema:
    """Return the columns of `failures/`: carried ones, arguments, ours. TableError if a name is in two."""
    return _with_ours([*carried, *arguments], FAILURE_FIELDS, FAILURES)


def row_schema(carried: pa.Schema) -> pa.Schema:
    """Return the columns of `rows/`: place and row_id, then carried ones. TableError if a name is in both."""
    _with_ours(carried, ROW_FIELDS, ROWS)
    return pa.schema([*ROW_FIELDS, *(field.remove_metadata() for field in carried)])


def invalid_schema(table: pa.Schema) -> pa.Schema:
    """Return the columns of `invalid/`: the table's own, then why. TableError if a name is in both."""
    return _with_ours(table, INVALID_FIELDS, INVALID)


def _with_ours(carried: Iterable[pa.Field], ours: pa.Schema, folder: str) -> pa.Schema:
    fields = [*carried, *ours]
    names = [field.name for field in fields]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        problem = f"column {', '.join(map(repr, twice))} of the table would be twice in {folder}/"
        raise TableError(problem, "rename it in the table, or drop it")
    return pa.schema([field.remove_metadata() for field in fields])


def public_arguments(arguments: Mapping[str, Any]) -> str:
    """Return arguments as records show them: URLs without user, password and query, which may be secret."""

    def public(named: Mapping[str, Any]) -> dict[str, Any]:
        return {**named, "uri": public_url(named["uri"])}

    return canonical_json({name: each_input(value, public) for name, value in arguments.items()})


def told_arguments(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a record; {} if they cannot be read, as it may be anybody's."""
    return parse_object(record.get("arguments") or "")


def with_arguments(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record's columns, and its arguments if no column of that name has a value."""
    return {**record, **{k: v for k, v in told_arguments(record).items() if record.get(k) is None}}


def record_of(values: Mapping[str, Any], where: str) -> Record:
    """Return the record in a row with the types of `RECORD_FIELDS`. Raises JobError if it cannot be one."""
    for name in _DIGESTS:
        if values.get(name) is not None and not SHA256.fullmatch(values[name]):
            raise not_ours(where, f"{name} of row {values['row_id']} is not a SHA-256")
    if values["frames_sha256"] is None and values.get("audio_sha256") is None:
        raise not_ours(where, f"row {values['row_id']} has neither frames nor sound")
    return Record(**{**values, "row_indices": tuple(values["row_indices"])})


def values_of(record: Record | FailureRecord) -> dict[str, Any]:
    """Return the record's columns, as `PartWriter.add` takes them."""
    return {name: getattr(record, name) for name in record.__dataclass_fields__}
