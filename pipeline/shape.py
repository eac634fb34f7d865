"""How the size of a clip is written, everywhere in one order: frames x height x width."""

from __future__ import annotations

SHAPE_ORDER = "frames x height x width"


def shape_text(num_frames: int | None, height: int | None, width: int | None) -> str:
    """Return 9 frames of 64 by 96 pixels as "9 x 64 x 96"; of an image "64 x 96"; "" of nothing."""
    if height is not None and width is not None:
        return " x ".join(str(number) for number in (num_frames, height, width) if number is not None)
    named = {"frames": num_frames, "pixels high": height, "pixels wide": width}
    return ", ".join(f"{number} {name}" for name, number in named.items() if number is not None)
