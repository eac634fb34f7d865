"""The bytes of a video or of sound, opened with PyAV of any version."""

from __future__ import annotations

import io
from typing import Any

import av

# Before 19, PyAV refused a file for tags that are not UTF-8 unless it was asked to ignore them.
_TAGS: dict[str, Any] = {"metadata_errors": "ignore"} if int(av.__version__.split(".")[0]) < 19 else {}


def open_av(
    content: bytes, options: dict[str, str], *, kind: str | None = None
) -> av.container.InputContainer:
    """Open a file for reading. kind: FFmpeg's name of a container that is known. Raises FFmpegError."""
    return av.open(io.BytesIO(content), "r", format=kind, options=options, **_TAGS)
