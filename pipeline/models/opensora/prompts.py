"""From a prompt to what Open-Sora was trained on: a sentence, the frame rate, the motion; and to ids."""

from __future__ import annotations

import re

from torch import Tensor
from transformers import CLIPTokenizer

from framefleet.pipeline.models import clip_words

_ENDS = ("<|startoftext|>", "<|endoftext|>")
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


def clip_ids(tokenizer: CLIPTokenizer, prompts: list[str]) -> Tensor:
    """Return (B, 77), as transformers 4 does for the authors. T5's tokenizer cleans by itself."""
    length = min(tokenizer.model_max_length, 77)
    return clip_words.token_ids(tokenizer, [_cleaned(p) for p in prompts], ends=_ENDS, length=length)


def _cleaned(prompt: str) -> str:
    """The ends are taken out of a prompt first: what stands next to them is cleaned by itself."""
    parts = re.split(f"({'|'.join(map(re.escape, _ENDS))})", prompt)
    return clip_words.lowered(" ".join(map(clip_words.plain_letters, parts)))
