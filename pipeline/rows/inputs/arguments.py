"""From a request's arguments, which are JSON values, to those that its recipe is called with.

Images become PIL images, videos lists of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

from framefleet.pipeline.errors import InputError
from framefleet.pipeline.model.specs.signature import PictureMode
from framefleet.pipeline.request import is_input
from framefleet.pipeline.rows.inputs.access import naming
from framefleet.pipeline.rows.inputs.pictures import open_image, open_video
from framefleet.pipeline.rows.inputs.video_frames import MAX_DECODED_FRAMES


def open_arguments(
    arguments: Mapping[str, Any],
    read: Callable[[str], bytes],
    *,
    max_frames: int | None = None,
    mode: PictureMode = "RGB",
) -> dict[str, Any]:
    """Return the arguments with every image and video opened.

    read: gives the bytes at a path or URL. max_frames: how many frames of a video are needed, from the first.
    mode: of images. Raises InputError when the bytes are not those that were checked.
    """
    return {name: _open(name, value, read, max_frames, mode) for name, value in arguments.items()}


def _open(
    name: str, value: Any, read: Callable[[str], bytes], max_frames: int | None, mode: PictureMode
) -> Any:
    if isinstance(value, list):  # a new one: a pipeline may change it
        return [_open(name, part, read, max_frames, mode) for part in value]
    if not is_input(value):
        return value
    with naming(name, value["uri"]):
        content = read(value["uri"])
        if hashlib.sha256(content).hexdigest() != value["sha256"]:
            raise InputError(
                "it is another than when the row was checked",
                "put the first one back, or run the same command again to render from the new one",
            )
        if "num_frames" in value:
            return open_video(content, max_frames=min(value["num_frames"], max_frames or MAX_DECODED_FRAMES))
        return open_image(content, mode=mode)
