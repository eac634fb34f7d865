"""From a request's arguments, which are JSON values, to those that its recipe is called with.

Images become PIL images, videos lists of them, references objects of the pipeline's own classes.
"""

from __future__ import annotations

import hashlib
import tempfile
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
    references: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """Return the arguments with every image and video opened.

    read: gives the bytes at a path or URL. max_frames: how many frames of a video are needed, from the first.
    mode: of images. references: see `references_of`. Raises InputError when the bytes are not those that were
    checked.
    """
    given = references or {}

    def opened(name: str, value: Any) -> Any:
        if isinstance(value, list):  # a new one: a pipeline may change it
            return [opened(name, part) for part in value]
        if not is_input(value):
            return value
        with naming(name, value["uri"]):
            content = _content(value, read)
            if "kind" in value:
                return _reference(given.get(name, {}), value["kind"], content)
            if "num_frames" in value:
                most = min(value["num_frames"], max_frames or MAX_DECODED_FRAMES)
                return open_video(content, max_frames=most)
            return open_image(content, mode=mode)

    return {name: opened(name, value) for name, value in arguments.items()}


def _content(value: Mapping[str, Any], read: Callable[[str], bytes]) -> bytes:
    content = read(value["uri"])
    if hashlib.sha256(content).hexdigest() != value["sha256"]:
        raise InputError(
            "it is another than when the row was checked",
            "put the first one back, or run the same command again to render from the new one",
        )
    return content


def _reference(classes: Mapping[str, Any], kind: str, content: bytes) -> Any:
    """Return it as the pipeline's own class of its kind opens it.

    The file has no extension, by which FFmpeg could take it for something else than in the sandbox.
    """
    if kind not in classes:
        raise InputError(f"this model takes no {kind} there", f"give one of {', '.join(classes) or 'none'}")
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        return classes[kind].from_file(file.name)
