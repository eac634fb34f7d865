"""How many tokens a row's prompts have, and how many of them the model's text encoders read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

PROMPT = "prompt"
_ENDLESS = 1_000_000  # tokenizers without a limit say 10**30


def texts_of(arguments: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Return the prompts among a row's arguments, by name."""
    prompts = ((name, value) for name, value in arguments.items() if "prompt" in name)
    return tuple(sorted((name, value) for name, value in prompts if isinstance(value, str)))


Count = Callable[[list[str]], list[int]]  # how many tokens each text has


def token_counter(tokenizer: Any) -> Count:
    """Return a function that counts tokens. It raises whatever the model's own tokenizer raises."""
    return lambda texts: [len(ids) for ids in tokenizer(texts, padding=False, truncation=False)["input_ids"]]


def texts_read(arguments: Mapping[str, Any]) -> list[str]:
    """Return the prompts that the pipeline reads: negative ones only if the row uses guidance."""
    scale = arguments.get("true_cfg_scale", arguments.get("guidance_scale"))
    is_unguided = isinstance(scale, int | float) and scale <= 1
    return [text for name, text in texts_of(arguments) if not (is_unguided and name.startswith("negative"))]


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptReading:
    """num_tokens: of `prompt`. limit: how many tokens are read; None if unknown. is_cut: whether one of the
    row's prompts has more."""

    num_tokens: int
    limit: int | None
    is_cut: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TextReader:
    """One tokenizer of a model. max_length: from its config. count: counts tokens, including special ones."""

    class_name: str
    max_length: Any
    count: Count

    def limit(self, arguments: Mapping[str, Any]) -> int | None:
        """Return how many tokens of a prompt a row's call reads; None if unknown.

        CLIP's encoders have a fixed number of positions, so `max_sequence_length` is for other encoders.
        """
        length = arguments.get("max_sequence_length")
        if type(length) is int and "CLIP" not in self.class_name:
            return length
        own = self.max_length
        return int(own) if isinstance(own, int | float) and 0 < own < _ENDLESS else None


def reader_for(readers: Sequence[TextReader], arguments: Mapping[str, Any]) -> TextReader | None:
    """Return the tokenizer that reads the most tokens of a row's prompts; None if the model has none."""
    return max(readers, key=lambda reader: reader.limit(arguments) or _ENDLESS, default=None)


def reading_of(readers: Sequence[TextReader], arguments: Mapping[str, Any]) -> PromptReading | None:
    """Return how much of a row's prompts is read; None without a prompt. Raises what the tokenizer raises."""
    reader, prompt = reader_for(readers, arguments), arguments.get(PROMPT)
    if reader is None or not isinstance(prompt, str):
        return None
    limit = reader.limit(arguments)
    num_tokens, *others = reader.count([prompt, *texts_read(arguments)])
    longest = max([num_tokens, *others])
    is_cut = None if limit is None else longest > limit
    return PromptReading(num_tokens=num_tokens, limit=limit, is_cut=is_cut)
