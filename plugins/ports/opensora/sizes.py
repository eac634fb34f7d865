"""From a named size of Open-Sora ("768px", "16:9") to height and width."""

from __future__ import annotations

import math

RESOLUTIONS = {"256px": 256**2, "768px": 768**2}  # pixels of a frame, whatever its shape
ASPECT_RATIOS = (  # width to height
    "16:9",
    "9:16",
    "1:1",
    "4:3",
    "3:4",
    "3:2",
    "2:3",
    "2:1",
    "1:2",
    "1.85:1",
    "1:1.85",
    "2.39:1",
    "1:2.39",
)


def named_size(
    resolution: str | None = None, aspect_ratio: str | None = None, *, multiple: int
) -> tuple[int, int]:
    """Return (height, width): multiples of `multiple`, about as many pixels as the resolution says.

    What is not named is 256px, and 16:9. The longer side is rounded down first, the other one fills up what
    is left. Raises ValueError for a name that is not known.
    """
    resolution, aspect_ratio = resolution or "256px", aspect_ratio or "16:9"
    for name, value, names in (
        ("resolution", resolution, RESOLUTIONS),
        ("aspect_ratio", aspect_ratio, ASPECT_RATIOS),
    ):
        if value not in names:
            raise ValueError(f"`{name}` has to be one of {', '.join(names)} but is {value!r}")
    pixels = RESOLUTIONS[resolution]
    wide, high = (float(side) for side in aspect_ratio.split(":"))
    longer = int(math.sqrt(pixels * max(wide, high) / min(wide, high))) // multiple * multiple
    shorter = pixels // longer // multiple * multiple
    return (shorter, longer) if wide >= high else (longer, shorter)
