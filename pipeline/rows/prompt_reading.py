"""How much of a row's prompts a model's text encoders read: by the tokenizer that lets most of it through."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from framefleet.pipeline.rows.prompt_lengths import texts_read

PROMPT = "prompt"
_ENDLESS = 1_000_000  # tokenizers that know no bound say 10**30


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptReading:
    """num_tokens: of `prompt`. limit: as many are read; None where nobody says. is_cut: one of the row's
    prompts has more."""

    num_tokens: int
    limit: int | None
    is_cut: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TextReader:
    """One tokenizer of a model. max_length: as its config says. count: tokens, those it adds included."""

    class_name: str
    max_length: Any
    count: Callable[[list[str]], list[int]]

    def limit(self, arguments: Mapping[str, Any]) -> int | None:
        """Return how many tokens of a prompt a row's call reads; None where nobody says.

        CLIP's encoders have this many positions and no more; what a call asks for is for others.
        """
        asked = arguments.get("max_sequence_length")
        if type(asked) is int and "CLIP" not in self.class_name:
            return asked
        own = self.max_length
        return int(own) if isinstance(own, int | float) and 0 < own < _ENDLESS else None


def reader_for(readers: Sequence[TextReader], arguments: Mapping[str, Any]) -> TextReader | None:
    """Return the one that reads most of a row's prompts; None where the model has none."""
    return max(readers, key=lambda reader: reader.limit(arguments) or _ENDLESS, default=None)


def reading_of(readers: Sequence[TextReader], arguments: Mapping[str, Any]) -> PromptReading | None:
    """Return how much is read of a row's prompts; None of a row without one, or that nobody can count.

    Raises whatever a tokenizer raises: it is a model's own.
    """
    reader, prompt = reader_for(readers, arguments), arguments.get(PROMPT)
    if reader is None or not isinstance(prompt, str):
        return None
    limit = reader.limit(arguments)
    num_tokens, *others = reader.count([prompt, *texts_read(arguments)])
    longest = max([num_tokens, *others])
    return PromptReading(
        num_tokens=num_tokens, limit=limit, is_cut=None if limit is None else longest > limit
    )
