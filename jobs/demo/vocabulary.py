"""In: a prompt. Out: what in it the shipped model never learned, and what it was given instead."""

from __future__ import annotations

import re

from framefleet.jobs.demo.shapes.captions import (
    CHINESE_COLORS,
    CHINESE_MOTIONS,
    CHINESE_SENTENCES,
    CHINESE_SHAPES,
    ENGLISH_MOTIONS,
    ENGLISH_SENTENCES,
    ENGLISH_SHAPES,
)
from framefleet.jobs.demo.shapes.scene import COLORS, MOTIONS, SHAPES
from framefleet.pipeline.guards.spelling import nearest

_TYPO = 0.85  # gren is green, two is not to
_SLOT = re.compile(r"\{\w+\}")
_WORD = re.compile(r"[^\W\d_\u4e00-\u9fff]+")
_CHINESE = re.compile(r"[\u4e00-\u9fff]+")


def unknown_words(prompt: str) -> list[str]:
    """Return the words of a prompt that no caption of the model's training had, in their order."""
    english = [word for word in _WORD.findall(prompt.lower()) if word not in _ENGLISH]
    chinese = _CHINESE.findall(_CHINESE_TERM.sub(" ", prompt))
    return list(dict.fromkeys([*english, *chinese]))


def hint_about(prompt: str) -> str | None:
    """Return what to tell of a prompt that has words which the model does not know; None of others."""
    unknown = unknown_words(prompt)
    if not unknown:
        return None
    return (
        f"the model was never trained on {', '.join(map(_with_nearest, unknown))}; it knows "
        f"{_listed(SHAPES)} in {_listed(COLORS)} that move left, right, up or down, bounce, grow, shrink or "
        "stay still"
    )


def _with_nearest(word: str) -> str:
    near = nearest(word, _ENGLISH, cutoff=_TYPO)
    return f"{word} ({near[0]}?)" if near else word


def _listed(words: tuple[str, ...]) -> str:
    return f"{', '.join(words[:-1])} and {words[-1]}"


def _english_words() -> frozenset[str]:
    phrases = [*ENGLISH_SENTENCES, *COLORS]
    phrases += [phrase for shape in SHAPES for phrase in ENGLISH_SHAPES[shape]]
    phrases += [phrase for motion in MOTIONS for phrase in ENGLISH_MOTIONS[motion]]
    return frozenset(word for phrase in phrases for word in _SLOT.sub("", phrase).split())


def _chinese_terms() -> list[str]:
    terms = [part for sentence in CHINESE_SENTENCES for part in _SLOT.split(sentence)]
    terms += [CHINESE_COLORS[color] for color in COLORS]
    terms += [term for shape in SHAPES for term in CHINESE_SHAPES[shape]]
    terms += [term for motion in MOTIONS for term in CHINESE_MOTIONS[motion]]
    return sorted({term for term in terms if term}, key=len, reverse=True)  # the longest first


_ENGLISH = _english_words()
_CHINESE_TERM = re.compile("|".join(map(re.escape, _chinese_terms())))
