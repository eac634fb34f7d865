"""In: a record. Out: the frames of its clip, or the arrays next to it, if they are as they were committed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from framefleet.pipeline.errors import JobError, StoreError
from framefleet.pipeline.outputs.frames.frames import Frames
from framefleet.pipeline.outputs.layout import RECORDS
from framefleet.pipeline.outputs.media.media import decode
from framefleet.pipeline.outputs.record_files import (
    HOW,
    MAX_CLIP_BYTES,
    RecordedFile,
    recorded_clip,
    recorded_extras,
    sound_content,
)
from framefleet.pipeline.outputs.stores.store import Store

FRAMES_OF = ("row_id", "uri", "path", "bytes", "media_sha256")  # what is asked of a record


def recorded_frames(store: Store, record: Mapping[str, Any]) -> Frames:
    """Return uint8 RGB (T, H, W, 3). Raises StoreError when the clip is gone, JobError when it is another."""
    file = recorded_clip(record, store.url_of(RECORDS))
    where = store.url_of(file.path)
    if record["bytes"] > MAX_CLIP_BYTES:
        raise JobError(f"{where} has more than {MAX_CLIP_BYTES:,} bytes", "leave it out, by a condition")
    try:
        return decode(_content(store, file))
    except StoreError as error:
        raise JobError(f"{where}: {error.problem}", error.fix) from error


def recorded_tensors(store: Store, record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arrays next to a clip, by name; {} without any. Raises as `recorded_frames` does."""
    file = recorded_extras(record)
    if file is None:
        return {}
    from safetensors.torch import load  # imports torch

    return load(_content(store, file))


def _content(store: Store, file: RecordedFile) -> bytes:
    where, content = store.url_of(file.path), sound_content(store, file)
    if content == "missing":
        raise StoreError(f"{where} is gone, but has a record", "put it back, or choose another output")
    if not isinstance(content, bytes):
        raise JobError(
            f"{where} is not what was committed: {HOW[content]}",
            "put it back, or run `framefleet repair`",
        )
    return content
