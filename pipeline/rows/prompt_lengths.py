"""How many tokens a row's prompts have: rows of equal lengths share forwards that are as long as these."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
        """Return `lengths_by` this tokenizer. Raises whatever it raises: it is a model's own."""
        return lengths_by(self.count, rows)

    def count(self, texts: list[str]) -> list[int]:
        return [len(ids) for ids in self._tokenizer(texts, padding=False, truncation=False)["input_ids"]]


class StoredTokenizer:
    """The tokenizer in a folder of a model: what is unpickled of it is its `PromptLengths`."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return _opened, (self._folder,)


def _opened(folder: str) -> PromptLengths:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    return PromptLengths(tokenizer)


def lengths_by(
    count: Callable[[list[str]], list[int]], rows: Sequence[Mapping[str, Any]]
) -> list[tuple[int, ...]]:
    """Return the lengths of each row's prompts in tokens, all rows' texts counted at once.

    rows: their arguments.
    """
    texts = [texts_read(arguments) for arguments in rows]
    distinct = list(dict.fromkeys(text for own in texts for text in own))
    lengths = dict(zip(distinct, count(distinct) if distinct else (), strict=True))
    return [tuple(lengths[text] for text in own) for own in texts]


def texts_read(arguments: Mapping[str, Any]) -> list[str]:
    """Return the prompts that the pipeline reads: no negative one where the row switches guidance off."""
    scale = arguments.get("true_cfg_scale", arguments.get("guidance_scale"))
    is_unguided = isinstance(scale, int | float) and scale <= 1
    return [text for name, text in texts_of(arguments) if not (is_unguided and name.startswith("negative"))]
