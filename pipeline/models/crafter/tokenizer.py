"""CLIP's tokenizer as open_clip's text towers want it. Checkpoints do not hold it, so its merges lie here."""

from __future__ import annotations

import functools
import gzip
from pathlib import Path

from transformers import CLIPTokenizer

from framefleet.pipeline.models.clip_words import byte_letters

_MERGES = Path(__file__).with_name("clip_merges.txt.gz")


@functools.cache  # a second to build
def clip_tokenizer() -> CLIPTokenizer:
    """Return the tokenizer of 49,408 tokens, each time the same one.

    It pads with token 0, "!", where OpenAI's pads with the end.
    """
    merges = [
        (left, right)
        for line in gzip.decompress(_MERGES.read_bytes()).decode().splitlines()
        for left, right in [line.split(" ")]
    ]
    alphabet = list(byte_letters().values())
    joined = [left + right for left, right in merges]
    tokens = [*alphabet, *(c + "</w>" for c in alphabet), *joined, "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, pad_token="!", model_max_length=77)
