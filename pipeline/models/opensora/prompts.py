"""From a prompt to what Open-Sora was trained on: a sentence, the frame rate, the amount of motion."""

from __future__ import annotations

import re

_RATE = re.compile(r"\d+ FPS\.$")


def with_suffixes(prompt: str, *, frame_rate: int | None, motion_score: int | None) -> str:
    """Return "raining, sea. 24 FPS. 4 motion score.". None leaves that part out.

    A prompt that ends with a frame rate of its own keeps it.
    """
    text = prompt.strip()
    text = text if text.endswith(".") else f"{text}."
    if frame_rate is not None and not _RATE.search(text):
        text = f"{text} {frame_rate} FPS."
    return text if motion_score is None else f"{text} {motion_score} motion score."
