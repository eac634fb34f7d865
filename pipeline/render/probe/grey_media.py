"""Grey pictures and silence in place of the files that a row names, for calls that only look at sizes."""

from __future__ import annotations

import tempfile
import wave
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from framefleet.pipeline.outputs.media.media import encode
from framefleet.pipeline.outputs.media.media_settings import Media

_SECONDS, _FPS, _SAMPLE_RATE = 2, 24, 32_000  # of the references that are videos or sounds


def grey(value: Mapping[str, Any], size: tuple[int, int]) -> Any:
    """Return what a row's image or video is opened as. size: (width, height) in pixels."""
    pictures = [Image.new("RGB", size, "grey") for _ in range(value.get("num_frames", 1))]
    return pictures if "num_frames" in value else pictures[0]


def grey_reference(made: Any, size: tuple[int, int]) -> Any:
    """Return a reference of this class, opened from a file as rows have it. See `reference_classes`."""
    with tempfile.NamedTemporaryFile(suffix=".wav" if made.kind == "audio" else "") as file:
        if made.kind == "audio":
            with wave.open(file, "wb") as sound:
                sound.setparams((1, 2, _SAMPLE_RATE, 0, "NONE", ""))
                sound.writeframes(bytes(2 * _SECONDS * _SAMPLE_RATE))
        else:
            media = Media(format="png" if made.kind == "image" else "mkv")
            frames = np.stack([np.asarray(grey({}, size))] * (1 if made.kind == "image" else _SECONDS * _FPS))
            file.write(encode(frames, media=media, fps=_FPS, metadata={}))
        file.flush()
        return made.from_file(file.name)
