"""Find contradictions between a record and its row_id, its arguments, its job or its clip.

Values that follow from other columns are computed again. Measured values (times, machines, versions) and
carried columns cannot be checked this way; a certificate's seal covers them (`plugins/prove`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache, lru_cache
from pathlib import PurePath
from typing import Any

import numpy as np
import pyarrow as pa

from framefleet.api.clips import Request, clip_fps
from framefleet.api.errors import JobError, StoreError
from framefleet.api.jobs import JOB_JSON, Claim
from framefleet.api.models import model_digest
from framefleet.api.outputs import RECORD_FIELDS, RECORDS, Store, preview_path, rows_of
from framefleet.api.texts import canonical_json, parse_json
from framefleet.pipeline.outputs.media.media import clip_header
from framefleet.pipeline.outputs.output import find_claim_as
from framefleet.pipeline.plugin import clip_suffixes
from framefleet.pipeline.recipes.catalog import BUILT_IN
from framefleet.pipeline.rows.identity import deciding, row_content, row_id_of
from framefleet.pipeline.rows.tables.record_columns import argument_values

# Columns that may only be set where the digest is.
_ONLY_WITH = {
    "audio_sha256": ("audio_sample_rate", "audio_channels", "audio_duration_s", "marked_audio_sha256"),
    "frames_sha256": ("frames_format", "marked_sha256", "preview_path"),
    "extra_outputs_sha256": ("extra_outputs_path",),
    "derived_sha256": tuple(
        f"derived_{name}" for name in ["path", "bytes", "height", "width", "num_frames", "fps"]
    ),
}
# Our columns that it reads; it also reads all columns of arguments.
LAW_COLUMNS = (
    *("row_id", "uri", "path", "preview_path", "model_name"),
    *("arguments", "seed", "scheduler", "recipe", "model_digest", "numerics", "environment"),
    *("height", "width", "num_frames", "fps", "duration_s", "fps_source"),
    *(name for digest, names in _ONLY_WITH.items() for name in (digest, *names) if name != "preview_path"),
)
_ARGUMENT_TYPES = (pa.string(), pa.bool_(), pa.int64(), pa.float64())
_TOLERANCE = 1e-3  # of a rate: 23.976 and 24000/1001 are one
# Rates that a row may have given a still: its record has none. The row_id tells which it was.
_USUAL = (
    *map(float, range(1, 1001)),
    *(rate * 1000 / 1001 for rate in range(1, 1001)),
    *(rate / 1.001 for rate in range(1, 1001)),  # often another float
    *(round(rate / 1.001, 3) for rate in range(1, 1001)),
    *(thirds / 3 for thirds in range(1, 361)),
    *(hundredths / 100 for hundredths in range(10, 10_000)),
    *(tenths / 10 for tenths in range(1000, 10_000)),
)


class RecordLaw:
    """Checks records of one output."""

    def __init__(self, claim: Claim | None, schema: pa.Schema) -> None:
        """claim: content of job.json, None if it cannot be read. schema: all columns of the records."""
        self._claim = claim
        place = schema.get_field_index("row_id")
        own = [
            (index, field)
            for index, field in enumerate(schema)
            if field.name not in RECORD_FIELDS.names and field.type in _ARGUMENT_TYPES
        ]

        @cache
        def fields_of(names: tuple[str, ...]) -> pa.Schema:
            # Carried columns come first, then one for each argument that a row may have, then ours.
            first = min((index for index, field in own if field.name in names), default=place)
            return pa.schema([field for i, field in own if field.name in names or first <= i < place])

        self._fields_of = fields_of
        self.own_columns = [field.name for _, field in own]

    @classmethod
    def of(cls, store: Store, schema: pa.Schema) -> RecordLaw:
        try:
            return cls(find_claim_as(store, JOB_JSON), schema)
        except JobError:  # lost or damaged; reported elsewhere
            return cls(None, schema)

    def contradiction(self, record: Mapping[str, Any], content: bytes | None = None) -> str | None:
        """Return what is wrong with a record, or None. content: its clip, as it was committed."""
        return next(self._contradictions(record, content), None)

    def contradictions(self, table: pa.Table) -> dict[str, str]:
        """Return what is wrong with records, by row_id. Their clips are not read."""
        names = [name for name in table.column_names if name in (*LAW_COLUMNS, *self.own_columns)]
        wrong = ((row["row_id"], self.contradiction(row)) for row in rows_of(table.select(names), RECORDS))
        return {row_id: reason for row_id, reason in wrong if reason}

    def cells(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """Return the columns that follow from a record's arguments."""
        arguments = parse_json(record["arguments"])
        return argument_values(arguments, self._fields_of(tuple(arguments)))

    def _contradictions(self, record: Mapping[str, Any], content: bytes | None) -> Iterator[str]:
        try:
            arguments = parse_json(record["arguments"])
            environment, numerics = _of_many(record["environment"]), _of_many(record["numerics"])
            if not all(isinstance(value, dict) for value in (arguments, environment, numerics)):
                raise ValueError("not a mapping")
            is_its_row = self._is_its_row(record, arguments, numerics)
        except (ValueError, TypeError) as error:
            yield f"its JSON cannot be read: {error}"
            return
        if not is_its_row:
            yield "row_id does not match its arguments, seed, recipe, scheduler, model and numerics"
        fields = self._fields_of(tuple(arguments))
        names = [name for name in fields.names if name in record]
        if any(record[name] != arguments.get(name) for name in names):  # as those of lists and files
            cells = argument_values(arguments, fields)
            for name in (name for name in names if record[name] != cells[name]):
                yield f"{name} differs from its arguments"
        if (threads := numerics.get("threads")) is not None and environment.get("threads") != threads:
            yield "threads differ between its environment and its numerics"
        yield from self._wrong_lengths(record)
        yield from self._wrong_names(record)
        if content is not None:
            yield from against_clip(record, content)

    def _is_its_row(
        self, record: Mapping[str, Any], arguments: Mapping[str, Any], numerics: Mapping[str, Any]
    ) -> bool:
        """Whether the row_id is right. True if the digest of a user's recipe is not known."""
        recipe, claim = record["recipe"], self._claim
        if recipe in BUILT_IN and BUILT_IN[recipe].digest is None:
            digest = None
        elif claim is not None and claim.job.recipe == recipe:
            digest = claim.recipe_digest
        else:  # of a plugin, in any version; or of the module that the job's recipe is of
            module, colon, _ = recipe.partition(":")
            return not colon or claim is None or claim.job.recipe.startswith(f"{module}:")
        content = row_content(
            Request(**{name: record[name] for name in ("seed", "scheduler", "recipe")}),
            model_digest=record["model_digest"],
            numerics=numerics,
            recipe_digest=digest,
        )
        before, after = canonical_json(content | {"fps": None}).split('"fps":null', 1)

        def spelled() -> Iterator[str]:
            is_flat = not any(isinstance(value, dict | list) for value in arguments.values())
            if is_flat:  # as it is hashed: spelling it again takes longer than all else
                yield record["arguments"]
            text = canonical_json(deciding(arguments))
            if not is_flat or text != record["arguments"]:
                yield text

        texts = (
            f'{start}"fps":{fps}{after}'
            for text in spelled()
            for start in [before.replace("{}", text, 1)]
            for fps in _rates_of_row(record)
        )
        return any(row_id_of(text) == record["row_id"] for text in texts)

    def _wrong_lengths(self, record: Mapping[str, Any]) -> Iterator[str]:
        num_frames, fps, source = record["num_frames"], record["fps"], record.get("fps_source")
        if num_frames is None:
            length = record.get("audio_duration_s") or record["duration_s"]
        else:
            length = num_frames / fps if fps else None
        if record["duration_s"] != length:
            yield "duration_s does not match its frames and fps"
        sound_s = record.get("audio_duration_s")
        of_job = self._claim.job.media.fps if self._claim else fps
        has_sound = self._claim is not None and self._claim.job.media.audio  # else it is measured and dropped
        of_sound = (num_frames / sound_s if sound_s and num_frames else None) if has_sound else fps
        rates = {"row": fps, "job": of_job, "model": fps, "sound": of_sound, "framefleet": clip_fps()}
        if source is not None and (fps is None or rates.get(source) != fps):
            yield "fps_source does not match its fps"

    def _wrong_names(self, record: Mapping[str, Any]) -> Iterator[str]:
        """Yield columns that name a file or model that does not exist."""
        path, still = record.get("path"), record.get("preview_path")
        if path and not record["uri"].endswith(path):
            yield "uri does not match its path"
        if path and still and still != preview_path(path):
            yield "preview_path does not match its path"
        for digest, names in _ONLY_WITH.items():
            if record.get(digest) is None:
                for name in (name for name in names if record.get(name) is not None):
                    yield f"{name} is set, but {digest} is not"
        if self._claim and record.get("model_name") not in (self._claim.job.models or (None,)):
            yield "model_name is not a model of its job"


def _rates_of_row(record: Mapping[str, Any]) -> Iterator[str]:
    """Yield the rates that the row may have set, as JSON; its record has the clip's rate."""
    fps, source = record["fps"], record.get("fps_source")
    if source != "row" or fps is None:
        yield canonical_json(None)
    if fps is None:
        yield from _spelled(are_usual=True)
        yield from _spelled(are_usual=False)
    elif source in (None, "row"):
        yield canonical_json(fps)


@cache
def _spelled(*, are_usual: bool) -> tuple[str, ...]:
    """Return rates as JSON, also as they are in a column of float32."""
    rates = _USUAL if are_usual else [thousandths / 1000 for thousandths in range(100, 100_000)]
    narrow = np.array(rates, "float32").tolist()
    return tuple(dict.fromkeys(map(canonical_json, (*rates, *narrow))))


def against_clip(record: Mapping[str, Any], content: bytes) -> Iterator[str]:
    """Yield the columns of a record that its clip contradicts.

    Not checked: files from an engine, which may count frames in another way, and those of plugins' steps.
    """
    if '"engine"' in record["numerics"] or PurePath(record["path"] or "").suffix in clip_suffixes():
        return
    try:
        header = clip_header(content)
    except StoreError as error:
        yield f"its clip cannot be read: {error.problem}"
        return
    if header.tags.get("row_id", record["row_id"]) != record["row_id"]:
        yield "its clip belongs to another row"
    for name in ("height", "width", "num_frames"):
        if record[name] != getattr(header, name):
            yield f"{name} differs from its clip"
    fps = record["fps"]
    if fps and header.fps and abs(fps - header.fps) > fps * _TOLERANCE:
        yield "fps differs from its clip"


_of_many = lru_cache(maxsize=64)(parse_json)  # many records of a job have the same text


def unsound_files(claim: Claim) -> str | None:
    """Return what is wrong with the SHA-256 of the model files in job.json, or None."""
    digests = {name: (one.digest, one.files) for name, one in claim.job.models.items()}
    of_one = (claim.model_extra or {}).get("model_digest")
    digests |= {} if digests or of_one is None else {"": (of_one, claim.model_files)}
    for name, (digest, files) in digests.items():
        if model_digest(files) != digest:
            return f"the files of the model {name}".strip() + " do not match its model_digest"
    return None
