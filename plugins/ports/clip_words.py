"""From cleaned text to the ids of CLIP's tokens, split into words as its first tokenizer does.

That is OpenAI's, which open_clip and transformers up to version 4 took over. transformers 5 splits some words
otherwise, and takes any special token for itself wherever it stands in a text: the "!" with which open_clip's
towers pad, too. Its merges are the same.
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
