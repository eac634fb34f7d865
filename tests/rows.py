"""Records and failures for tests: valid ones, with what matters to the test changed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from framefleet import Request
from framefleet.pipeline.guards.json_text import canonical_json
from framefleet.pipeline.outputs.parts.records import FailureRecord, Record
from framefleet.pipeline.recipes.catalog import BUILT_IN
from framefleet.pipeline.rows.identity import Identity, row_content, row_id_of

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)

RECORD = Record(
    row_id="0" * 32,
    row_indices=(3, 7),
    uri="clips/00/0.mp4",
    media_sha256="a" * 64,
    frames_sha256="b" * 64,
    bytes=1234,
    height=32,
    width=48,
    num_frames=9,
    fps=16.0,
    duration_s=0.5625,
    arguments='{"prompt":"一只猫"}',
    seed=2**63 - 1,
    scheduler=None,
    recipe="generate",
    model="tiny",
    model_digest="c" * 64,
    numerics="{}",
    environment="{}",
    batch_size=2.5,
    attempt=1,
    worker="worker-1",
    node="node-1",
    started_at=NOON,
    finished_at=NOON,
    encode_s=0.1,
    denoise_s=0.2,
    decode_s=0.3,
    write_s=0.4,
    peak_memory_bytes=None,
)

FAILURE = FailureRecord(
    row_id="0" * 32,
    row_indices=(3,),
    error_type="ValueError",
    message="no",
    traceback="Traceback ...",
    attempts=3,
    arguments="{}",
    seed=7,
    scheduler="ddim",
    recipe="generate",
    model="tiny",
    workers=("worker-1", "worker-2"),
    failed_at=NOON,
)


def record(number: int, **changed: Any) -> Record:
    """Return the record of row `number`; equal numbers, equal row_ids."""
    return replace(RECORD, row_id=f"{number:032x}", **changed)


def failure(**changed: Any) -> FailureRecord:
    return replace(FAILURE, **changed)


def own_row_id(values: Mapping[str, Any]) -> str:
    """Return the row_id that follows from a record's columns, of a built-in recipe and no rate of its own."""
    names = ("seed", "scheduler", "recipe")
    asked = {name: values[name] for name in names}
    content = row_content(
        Request(arguments=json.loads(values["arguments"]), **asked),
        model_digest=values["model_digest"],
        numerics=json.loads(values["numerics"]),
        recipe_digest=None,
    )
    return row_id_of(canonical_json(content))


def row_id(
    request: Request, *, model_digest: str, numerics: dict[str, Any], recipe_digest: str | None
) -> str:
    """Return the row_id of a request whose recipe has this digest."""
    recipe = replace(BUILT_IN["generate"], digest=recipe_digest)
    identity = Identity(model_digest=model_digest, numerics=numerics, recipes={request.recipe: recipe})
    return identity(request)
