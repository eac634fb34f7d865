"""How many tokens a row's prompts have: rows of equal lengths share forwards that are as long as these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def texts_of(arguments: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Return the prompts among a row's arguments, by name."""
    found = ((name, value) for name, value in arguments.items() if "prompt" in name)
    return tuple(sorted((name, value) for name, value in found if isinstance(value, str)))


class PromptLengths:
    """Counts tokens as one tokenizer of a model does. Can be pickled."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> list[tuple[int, ...]]:
        """Return the lengths of each row's prompts in tokens, all rows' texts tokenised at once.

        rows: their arguments.
        """
        texts = [[text for _, text in texts_of(arguments)] for arguments in rows]
        distinct = list(dict.fromkeys(text for own in texts for text in own))
        lengths = dict(zip(distinct, self._counted(distinct), strict=True))
        return [tuple(lengths[text] for text in own) for own in texts]

    def _counted(self, texts: list[str]) -> list[int]:
        """Return the lengths of texts; where the tokenizer fails, as if all were alike."""
        try:
            return [len(ids) for ids in self._tokenizer(texts, padding=False, truncation=False)["input_ids"]]
        except Exception:  # a model's own; which rows meet is no reason to end the job
            return [0] * len(texts)
