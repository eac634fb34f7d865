"""An output of real small clips, as a driver leaves it: nothing is rendered, nothing of Ray or torch runs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from framefleet import Store
from framefleet.pipeline.guards.json_text import canonical_json
from framefleet.pipeline.outputs.columns import late_field
from framefleet.pipeline.outputs.frames.frames import Frames
from framefleet.pipeline.outputs.frames.result import Audio
from framefleet.pipeline.outputs.layout import clip_path
from framefleet.pipeline.outputs.media.media import encode
from framefleet.pipeline.outputs.media.media_settings import SOUNDS, Media, MediaFormat
from framefleet.pipeline.outputs.parts.parts import PartWriter
from framefleet.pipeline.outputs.parts.records import record_schema, values_of
from framefleet.pipeline.outputs.parts.seals import new_run
from tests.rows import own_row_id, record

_ARGUMENTS = {"prompt": pa.string(), "guidance_scale": pa.float64()}
PROMPT = "a red ball 一只猫 <b>&"


def frames_of(number: int, num_frames: int = 3) -> Frames:
    """Return frames of one colour for each row, with a corner that tells the frames apart."""
    frames = np.full((num_frames, 32, 48, 3), 8 * (number % 30), np.uint8)
    frames[np.arange(num_frames), 0, 0] = 255
    return frames


def rendered(
    store: Store,
    num_rows: int = 7,
    *,
    format: MediaFormat = "mp4",
    rows_in_a_part: int = 3,
    carried: dict[str, Sequence[Any]] | None = None,
    scores: dict[str, Sequence[float | None]] | None = None,
    frames_of: Callable[[int, int], Frames] = frames_of,
    arguments: dict[str, Sequence[Any]] | None = None,
    seeds: Sequence[int] | None = None,
) -> list[dict[str, Any]]:
    """Commit rows with their clips; return their records. carried: columns, a value for each row.
    scores: likewise, as workers measure them. arguments: likewise, besides those that all rows have. seeds:
    in place of the rows' numbers.

    frames_of: the clip of a row, of so many frames.
    """
    # Those that are called as an argument are not carried, and come after the others.
    columns = pa.table({name: cells for name, cells in (carried or {}).items() if name not in _ARGUMENTS})
    flat_arguments = pa.schema([(name, kind) for name, kind in _ARGUMENTS.items() if name in (carried or {})])
    if "prompt" not in flat_arguments.names:
        flat_arguments = flat_arguments.append(pa.field("prompt", pa.string()))
    measured = scores or {}
    added = pa.schema([late_field(name, pa.float64()) for name in measured])
    schema = record_schema(columns.schema, flat_arguments, added)
    writer = PartWriter(store, "records", schema, run=new_run(1))
    records = []
    for number in range(num_rows):
        own = {"prompt": f"{PROMPT} {number}", "guidance_scale": number / 2}
        own |= {name: cells[number] for name, cells in (carried or {}).items() if name in _ARGUMENTS}
        own |= {name: cells[number] for name, cells in (arguments or {}).items()}
        seed = seeds[number] if seeds else number
        values = _stored(store, number, format, frames_of, canonical_json(own), seed)
        flat: dict[str, Any] = {name: own[name] for name in flat_arguments.names}
        flat |= {name: cells[number] for name, cells in measured.items()}
        writer.add(columns.slice(number, 1).to_batches()[0] if columns.num_columns else None, values | flat)
        records.append(values)
        if writer.rows_waiting == rows_in_a_part:
            writer.flush()
    writer.flush()
    return records


def _stored(
    store: Store,
    number: int,
    format: MediaFormat,
    frames_of: Callable[[int, int], Frames],
    arguments: str,
    seed: int,
) -> dict[str, Any]:
    frames = None if format in SOUNDS else frames_of(number, 1 if format == "png" else 3)
    sound = Audio(samples=np.full((1, 800), number / 100, np.float32), sample_rate=8000)
    content = encode(
        frames, media=Media(format=format), fps=8, metadata={}, audio=sound if format in SOUNDS else None
    )
    said = values_of(record(0)) | {
        "row_indices": (number,),
        "media_sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
        "seed": seed,
        "arguments": arguments,
        **dict.fromkeys(("height", "width", "num_frames", "fps")),
        "duration_s": sound.duration_s,
    }
    if frames is not None:
        num_frames, height, width, _ = frames.shape
        fps = None if format == "png" else 8.0
        said |= {"height": height, "width": width, "num_frames": num_frames, "fps": fps}
        said["duration_s"] = num_frames / fps if fps else None
    said["row_id"] = row_id = own_row_id(said)
    path = clip_path(row_id, f".{format}")
    store.create(path, content)
    return said | {"uri": store.url_of(path), "path": path}


def files(folder: Path) -> dict[str, bytes]:
    """Return what an export wrote, by path, without its own notes, and files that it is just writing."""
    paths = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    shown = (path for path in paths if not any(part.startswith(".framefleet") for part in path.parts))
    return {path.as_posix(): (folder / path).read_bytes() for path in shown}
