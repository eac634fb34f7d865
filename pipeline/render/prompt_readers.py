"""The tokenizers of a pipeline, and how much of a row's prompts they read."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from framefleet.pipeline.request import Request
from framefleet.pipeline.rows.prompt_lengths import PromptReading, TextReader, reading_of, token_counter

log = logging.getLogger(__name__)


class PromptReaders:
    def __init__(self, components: Iterable[Any]) -> None:
        """components: of the pipeline, among them its tokenizers."""
        tokenizers = (getattr(component, "tokenizer", component) for component in components)
        self._readers = [
            TextReader(
                class_name=type(tokenizer).__name__,
                max_length=getattr(tokenizer, "model_max_length", None),
                count=token_counter(tokenizer),
            )
            for tokenizer in tokenizers
            if callable(tokenizer) and hasattr(tokenizer, "pad_token_id") and hasattr(tokenizer, "decode")
        ]

    def reading(self, request: Request) -> PromptReading | None:
        """Return how much of a row's prompts is read; None if that is unknown."""
        try:
            return reading_of(self._readers, request.arguments)
        except Exception as error:  # a model's own tokenizer; its clip is there all the same
            log.info("prompts are not counted: %s: %s", type(error).__name__, error)
            return None
