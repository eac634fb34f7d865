"""Find out, from rows that differ only in their texts, whether forwards are as long as the prompts.

Where they are, only rows of equal lengths can share forwards, and whoever hands out rows should bring such
rows together. Not asked of networks that take rows as lists: these share what they can by themselves.
"""

from __future__ import annotations

import logging
from collections.abc import Hashable, Iterable, Mapping
from contextlib import suppress
from typing import Any

from framefleet.pipeline.request import Request
from framefleet.pipeline.rows import prompt_lengths
from framefleet.pipeline.rows.tables.rows import SHAPING

log = logging.getLogger(__name__)

# Rows whose other arguments differ are not compared; a table of more kinds is not looked at further.
_MAX_KINDS = 256
# Sizes of one kind: what two or three do not show, more do not show either.
_MAX_SIZES = 8


class PromptWatch:
    """lengths: how to count the tokens of prompts, once forwards were seen to depend on them."""

    def __init__(self, components: Iterable[Any]) -> None:
        """components: of the pipeline, among them its tokenizers."""
        self.lengths: prompt_lengths.PromptLengths | None = None
        self._counters: list[prompt_lengths.PromptLengths] = []
        self._readers: list[prompt_lengths.TextReader] = []
        for component in components:
            tokenizer = getattr(component, "tokenizer", component)
            if callable(tokenizer) and hasattr(tokenizer, "pad_token_id") and hasattr(tokenizer, "decode"):
                counter = prompt_lengths.PromptLengths(tokenizer)
                name, longest = type(tokenizer).__name__, getattr(tokenizer, "model_max_length", None)
                reader = prompt_lengths.TextReader(class_name=name, max_length=longest, count=counter.count)
                self._counters.append(counter)
                self._readers.append(reader)
        self._seen: dict[Hashable, dict[Hashable, Mapping[str, Any]]] = {}  # by kind of row and sizes

    def reading(self, request: Request) -> prompt_lengths.PromptReading | None:
        """Return how much of a row's prompts is read; None if that is unknown."""
        try:
            return prompt_lengths.reading_of(self._readers, request.arguments)
        except Exception as error:  # a model's own tokenizer; its clip is there all the same
            log.info("prompts are not counted: %s: %s", type(error).__name__, error)
            return None

    def saw(self, request: Request, sizes: Hashable) -> None:
        """sizes: those of the tensors in the row's first forward; None where they say nothing."""
        kind = (request.recipe, _rest(request.arguments))
        if self.lengths or sizes is None or (kind not in self._seen and len(self._seen) == _MAX_KINDS):
            return
        texts = self._seen.setdefault(kind, {})
        if sizes in texts or len(texts) == _MAX_SIZES:
            return
        texts[sizes] = request.arguments
        rows = list(texts.values())
        for counter in self._counters if len(rows) > 1 else ():
            with suppress(Exception):  # a model's own tokenizer; which rows meet is no reason to end a job
                if len(set(counter(rows))) == len(rows):
                    self.lengths = counter
                    return


def _rest(arguments: Mapping[str, Any]) -> Hashable:
    """Return what else may decide the sizes of forwards: all except texts, and numbers that never do."""
    numbers = {
        name for name, v in arguments.items() if isinstance(v, int | float) and not isinstance(v, bool)
    }
    free = numbers - {*SHAPING} | dict(prompt_lengths.texts_of(arguments)).keys()
    own = sorted(arguments.items())
    return tuple((name, None if name in free else repr(v)) for name, v in own if v is not None)
