"""In: a record. Out: the frames of its clip."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any, get_args

from framefleet.pipeline.errors import JobError, StoreError
from framefleet.pipeline.outputs.encode_clip import clip_path
from framefleet.pipeline.outputs.frames import Frames
from framefleet.pipeline.outputs.json_file import not_ours
from framefleet.pipeline.outputs.media import decode
from framefleet.pipeline.outputs.media_settings import MediaFormat
from framefleet.pipeline.outputs.store import Store


def recorded_frames(store: Store, record: Mapping[str, Any]) -> Frames:
    """Return uint8 RGB (T, H, W, 3). Raises StoreError when the clip is gone, JobError when it is none.

    It is found by its row_id, and not where the record says: the output may have been moved.
    """
    suffix = "".join(PurePosixPath(record["uri"]).suffixes)
    if suffix not in {f".{format}" for format in get_args(MediaFormat)}:
        raise not_ours(store.url_of("records"), f"the clip of {record['row_id']} is a {suffix!r}")
    path = clip_path(record["row_id"], suffix)
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
