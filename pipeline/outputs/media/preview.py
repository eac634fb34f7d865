"""From frames to a small still of them: what is shown before a clip plays, or in its place."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from framefleet.pipeline.outputs.frames.frames import Pictures

PREVIEW_SIDE = 320  # pixels of the longer side: sharp on a tile of a dense screen, 10 KB
# 2 of 6: a tenth larger than the slowest, at a third of its time (docs/gallery.md, "What previews cost").
_EFFORT, _QUALITY = 2, 80


def preview_of(frames: Pictures) -> bytes:
    """Return the middle frame as WebP, made smaller, never larger; equal frames give equal bytes.

    The middle: many clips begin with what they come from. Floats are cut to [0, 1].
    """
    frame = frames[len(frames) // 2]
    if frame.dtype != np.uint8:
        frame = (np.nan_to_num(frame).clip(0, 1) * 255).round().astype(np.uint8)
    still = Image.fromarray(frame)
    still.thumbnail((PREVIEW_SIDE, PREVIEW_SIDE), Image.Resampling.BICUBIC, reducing_gap=2.0)
    buffer = io.BytesIO()
    still.save(buffer, format="WEBP", quality=_QUALITY, method=_EFFORT)
    return buffer.getvalue()
