"""From a row's prompt to the split that it is in: training or validation, never both."""

from __future__ import annotations

import hashlib
from typing import Literal

Split = Literal["train", "validation"]
SPLITS: tuple[Split, ...] = ("train", "validation")


def split_of(prompt: str, validation: float) -> Split:
    """Return the split of all rows with this prompt. Depends on nothing else, so a growing output keeps it.

    validation: the expected share of prompts, 0 to 1.
    """
    number = int.from_bytes(hashlib.sha256(prompt.encode("utf-8", "surrogatepass")).digest()[:8])
    return "validation" if number < validation * 2**64 else "train"
