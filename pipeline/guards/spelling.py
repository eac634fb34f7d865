"""In: a word that nothing goes by. Out: what may have been meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(word: str, known: Iterable[str], *, most: int = 1, cutoff: float = 0.6) -> list[str]:
    """Return the known words that are most like it, the best first; cutoff: 1 is the same word, 0 any."""
    return difflib.get_close_matches(word, list(known), n=most, cutoff=cutoff)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return the fix of an error that tells of a name nothing has."""
    names = list(known)
    near = nearest(word, names)
    return f"did you mean {near[0]!r}?" if near else f"use one of {', '.join(sorted(names))}"
