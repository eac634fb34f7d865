"""In: a record. Out: the frames of its clip."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from framefleet.cluster.write import clip_path
from framefleet.pipeline.errors import StoreError
from framefleet.pipeline.outputs.frames import Frames
from framefleet.pipeline.outputs.media import decode
from framefleet.pipeline.outputs.store import Store


def recorded_frames(store: Store, record: Mapping[str, Any]) -> Frames:
    """Return uint8 RGB (T, H, W, 3). Raises StoreError when the clip is gone.

    It is found by its row_id, and not where the record says: the output may have been moved.
    """
    path = clip_path(record["row_id"], PurePosixPath(record["uri"]).suffix)
    try:
        return decode(store.read(path))
    except FileNotFoundError:
        raise StoreError(
            f"{store.url_of(path)} is gone, but has a record", "put it back, or choose another output"
        ) from None
