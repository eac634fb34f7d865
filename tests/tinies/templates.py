"""Tokenizers of bytes for pipelines that put a prompt into words of their own, and cut these off again."""

from __future__ import annotations

import itertools

from transformers import ByT5Tokenizer


def template_tokenizer(template: str, count: int) -> ByT5Tokenizer:
    """Return one that makes `count` tokens of what stands before the prompt in `template`, and no more.

    Pipelines cut these off by their number: with more of them they would cut off the prompt.
    """
    instruction, _, _ = template.partition("{}")
    ends = [len(instruction) * i // count for i in range(count + 1)]
    pieces = [instruction[start:end] for start, end in itertools.pairwise(ends)]
    tokenizer = ByT5Tokenizer()
    tokenizer.add_tokens(sorted(set(pieces)))
    return tokenizer


# A chat as it is: the words of its messages one after the other.
CHAT = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
