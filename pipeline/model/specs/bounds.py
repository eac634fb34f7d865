"""How large what a row asks for may be: far beyond what models render, so that no cell takes all memory.

Pictures and clips are bounded as those that rows may start from are (docs/inputs.md).
"""

from __future__ import annotations

MAX_SIDE = 16_384  # of the widest picture of this many pixels, 4:1
MAX_PICTURE_PIXELS = 1 << 26  # 8192 x 8192
MAX_FRAMES = 16_384  # eleven minutes at 24 fps; models render some hundred
MAX_CLIP_PIXELS = 1 << 32  # in all frames together: 51 GB as the floats that diffusers returns
MAX_STEPS = 10_000  # ten times what schedulers are trained with
MAX_LIST = MAX_STEPS  # lists are mostly those of steps

MAX_IMAGES = 64  # of one cell, each as large as an image may be: as many pixels as a video may have


def too_large(height: int, width: int, num_frames: int = 1) -> str | None:
    """Return why a clip is more than anything reads, as the end of "height is ..., but ..."."""
    if height * width > MAX_PICTURE_PIXELS:
        return f"a picture of {height:,} x {width:,} has more than {MAX_PICTURE_PIXELS:,} pixels"
    if height * width * num_frames > MAX_CLIP_PIXELS:
        size = f"{num_frames:,} frames of {height:,} x {width:,}"
        return f"{size} have more than {MAX_CLIP_PIXELS:,} pixels"
    return None
