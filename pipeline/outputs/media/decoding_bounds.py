"""How large a clip of an output may become when it is decoded: the output may be anybody's."""

from __future__ import annotations

LARGEST_FRAME = 1 << 26  # 8192 x 8192, as in docs/inputs.md
MOST_FRAMES = 1 << 14  # eleven minutes at 24 fps
MOST_PIXELS = 1 << 30  # of all frames together, which are held at one time: 3 GB, 517 frames of 1080 x 1920
MOST_SAMPLES = 1 << 28  # of all channels together: half a gigabyte, 46 minutes in stereo at 48 kHz


def check_pixels(width: int, height: int, num_frames: int) -> None:
    """Raise ValueError for more than is decoded."""
    if num_frames > MOST_FRAMES:
        raise ValueError(f"they have more than {MOST_FRAMES:,} frames")
    if width * height > LARGEST_FRAME:
        raise ValueError(f"a frame of {height} x {width} has more than {LARGEST_FRAME:,} pixels")
    if width * height * num_frames > MOST_PIXELS:
        raise ValueError(f"{num_frames} frames of {height} x {width} have more than {MOST_PIXELS:,} pixels")


def check_samples(count: int) -> None:
    """Raise ValueError for more than is decoded."""
    if count > MOST_SAMPLES:
        raise ValueError(f"the sound has more than {MOST_SAMPLES:,} samples")
