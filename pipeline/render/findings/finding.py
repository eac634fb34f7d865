"""What was found of calls that look alike, as values and as JSON.

Hints: sizes to begin with, and modules to pin in any case. Whoever uses them proves the rest on rows of its
own, so that a wrong one, or one that somebody made up, costs time and no bit.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from framefleet.pipeline.guards.json_text import canonical_json
from framefleet.pipeline.guards.strict_model import Strict
from framefleet.pipeline.model.model import ModelSettings
from framefleet.pipeline.model.specs.dtypes import asked
from framefleet.pipeline.outputs.stores.json_file import read_as
from framefleet.pipeline.render.probe.probe import input_shape
from framefleet.pipeline.request import Request

# A shape has about a dozen sizes and a plan for each and each mix of LoRAs; a network some thousand modules.
MAX_FILE_BYTES = 2**20

NumRows = Annotated[int, Field(ge=2, le=2**16)]
Worth = Literal["pays", "slow", "inexact"]


class BatchSize(Strict):
    """How long a forward of this many rows takes, and what follows: used, not worth it, or never exact."""

    rows: NumRows
    seconds: Annotated[float, Field(gt=0)]
    verdict: Worth


class Pins(Strict):
    """Which modules went row by row in exact forwards of this many rows.

    loras: that some of the rows use; differing: of these, such as not all rows use alike. axes: along which
    the rows were joined, leaf by leaf.
    """

    rows: NumRows
    loras: list[str]
    differing: list[str]
    axes: list[int | None]
    modules: list[str]


class RowMemory(Strict):
    """What one row held on a GPU, as a rehearsal measured it.

    machine: the GPU's name, and torch's version. peak_bytes: at most, held_bytes of the model included.
    step_bytes: of one forward of a denoiser besides what was there before, 0 where that is not known;
    step_values: in the tensors that it was called with.
    """

    machine: str
    peak_bytes: Annotated[int, Field(gt=0)]
    held_bytes: Annotated[int, Field(ge=0)]
    step_bytes: Annotated[int, Field(ge=0)]
    step_values: Annotated[int, Field(gt=0)]


class Found(Strict):
    """All of it, once for each number of rows; pins also for each mix of LoRAs; memory for each machine."""

    format: Literal[1] = 1
    sizes: list[BatchSize] = Field(default_factory=list)
    pins: list[Pins] = Field(default_factory=list)
    memory: list[RowMemory] = Field(default_factory=list)


_FOUND = TypeAdapter(Found)


def united(older: Found, newer: Found) -> Found:
    """Return what both say, and of what both speak of, what the newer says."""
    sizes = {size.rows: size for size in (*older.sizes, *newer.sizes)}
    pins = {(p.rows, *p.loras, None, *p.differing): p for p in (*older.pins, *newer.pins)}
    memory = {found.machine: found for found in (*older.memory, *newer.memory)}
    return Found(
        sizes=[sizes[rows] for rows in sorted(sizes)],
        pins=list(pins.values()),
        memory=list(memory.values()),
    )


def memory_name(model_digest: str, settings: ModelSettings, request: Request) -> str:
    """Return what the memory of a request is kept as, see `Places`: by model, options and shape."""
    options = settings.options.model_dump(mode="json")
    said = [model_digest, asked(settings.dtype), options, input_shape(request)]
    return f"memory/{hashlib.sha256(canonical_json(said).encode()).hexdigest()[:32]}"


def to_bytes(found: Found) -> bytes:
    return canonical_json(found.model_dump()).encode()


def found_in(content: bytes, where: str) -> Found:
    """Return what `to_bytes` was given. Raises JobError for anything else. where: what messages call it."""
    return read_as(_FOUND, content, where, fix="delete it")
