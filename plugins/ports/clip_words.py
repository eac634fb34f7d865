"""Turns cleaned text into the ids of CLIP's tokens, split into words like its first tokenizer.

That is OpenAI's, also used by open_clip and by transformers up to version 4. transformers 5 splits some words
differently, and reads special tokens anywhere in a text as such, even the "!" that open_clip's towers pad
with. Its merges are the same.
"""

from __future__ import annotations

import functools
import re

import regex
import torch
from torch import Tensor
from transformers import CLIPTokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode


def lowered(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip().lower()


def token_ids(
    tokenizer: CLIPTokenizer, texts: list[str], *, ends: tuple[str, str], length: int = 77
) -> Tensor:
    """Return (B, length): the start, a text's tokens, the end, padding; what is too long is cut.

    ends: what stands for start and end within a text.
    """
    own = dict(zip(ends, (tokenizer.bos_token_id, tokenizer.eos_token_id), strict=True))
    rows = []
    for text in texts:
        row = [tokenizer.bos_token_id, *_tokens(tokenizer, text, own)[: length - 2], tokenizer.eos_token_id]
        rows.append(row + [tokenizer.pad_token_id] * (length - len(row)))
    return torch.tensor(rows)


def _tokens(tokenizer: CLIPTokenizer, text: str, ends: dict[str, int]) -> list[int]:
    letters, merges = bytes_to_unicode(), tokenizer.backend_tokenizer.model
    ids: list[int] = []
    for word in _words(*ends).findall(text):
        if word in ends:
            ids.append(ends[word])
        else:
            spelled = "".join(letters[byte] for byte in word.encode())
            ids.extend(token.id for token in merges.tokenize(spelled))
    return ids


@functools.cache
def _words(*ends: str) -> regex.Pattern[str]:
    names = "|".join(map(regex.escape, ends))
    parts = r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"
    return regex.compile(f"{names}|{parts}", regex.IGNORECASE)
