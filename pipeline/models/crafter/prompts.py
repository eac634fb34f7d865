"""From prompts to the ids that open_clip's tokenizer gives them: cleaned, split and cut as it does."""

from __future__ import annotations

import html

from torch import Tensor
from transformers import CLIPTokenizer

from framefleet.pipeline.models import clip_words

_ENDS = ("<start_of_text>", "<end_of_text>")  # open_clip's names; "<|endoftext|>" is plain text to it


def prompt_ids(tokenizer: CLIPTokenizer, prompts: list[str]) -> Tensor:
    """Return (B, 77)."""
    cleaned = [clip_words.lowered(html.unescape(html.unescape(clip_words.plain_letters(p)))) for p in prompts]
    return clip_words.token_ids(tokenizer, cleaned, ends=_ENDS, length=tokenizer.model_max_length)
