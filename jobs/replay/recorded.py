"""In: a record. Out: the frames of its clip."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from framefleet.pipeline.errors import JobError, StoreError
from framefleet.pipeline.outputs.frames.frames import Frames
from framefleet.pipeline.outputs.media.clip_names import recorded_path
from framefleet.pipeline.outputs.media.media import decode
from framefleet.pipeline.outputs.stores.store import Store


def recorded_frames(store: Store, record: Mapping[str, Any]) -> Frames:
    """Return uint8 RGB (T, H, W, 3). Raises StoreError when the clip is gone, JobError when it is none."""
    path = recorded_path(record, store.url_of("records"))
    try:
        content = store.read(path)
    except FileNotFoundError:
        raise StoreError(
            f"{store.url_of(path)} is gone, but has a record", "put it back, or choose another output"
        ) from None
    try:
        return decode(content)
    except StoreError as error:
        raise JobError(f"{store.url_of(path)}: {error.problem}", error.fix) from error
