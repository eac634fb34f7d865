"""Find rows with prompts that are longer than the model reads.

Tokens are counted in the libraries' process, and only for prompts that can be too long: a prompt has at most
as many tokens as bytes, plus a few that mark its ends.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from framefleet.api.errors import ModelError
from framefleet.api.texts import parse_object
from framefleet.pipeline.guards.sandbox import Ended, bound_memory
from framefleet.pipeline.model.library_process import LIBRARY_PROCESS
from framefleet.pipeline.rows.prompt_lengths import Count, TextReader, reader_for, texts_read, token_counter
from framefleet.pipeline.rows.tables.table_rows import IdentifiedRow

log = logging.getLogger(__name__)

_CONFIG = "tokenizer_config.json"
_MAX_CONFIG_BYTES = 1 << 24
_PARALLELISM = "TOKENIZERS_PARALLELISM"  # one thread per core would reserve too much of the bounded memory
_MAX_BYTES = 2 << 30  # more than the process needs with its tokenizer
_MARKS = 8  # tokens that a tokenizer adds, at most
_MAX_KNOWN = 1 << 16  # remembered prompts; they often come again with other seeds


@dataclass(frozen=True, slots=True, kw_only=True)
class CutPrompt:
    """A row whose prompt, or negative prompt, has more tokens than the model reads."""

    row_index: int
    num_tokens: int
    limit: int


class CutPrompts:
    """Counts rows with cut prompts. first: such a row. is_counted: False if there is no tokenizer."""

    def __init__(self, configs: Path) -> None:
        """configs: a folder with the model's files, without the weights."""
        self.num_rows = 0
        self.first: CutPrompt | None = None
        self.is_counted = True
        self._readers: list[TextReader] = []
        self._counters: list[_Counter] = []
        for file in sorted(configs.glob(f"*/{_CONFIG}")):
            try:
                with open(file, "rb") as stream:
                    config = parse_object(stream.read(_MAX_CONFIG_BYTES))
            except OSError:  # `plan` reports it for the model
                config = {}
            counter = _Counter(file.parent)
            name, longest = str(config.get("tokenizer_class")), config.get("model_max_length")
            self._readers.append(TextReader(class_name=name, max_length=longest, count=counter))
            self._counters.append(counter)

    def add(self, rows: Iterable[IdentifiedRow]) -> None:
        """Count the next rows of the table."""
        long = [long_texts for row in rows if self.is_counted and (long_texts := self._long_texts(row))]
        try:
            for counter in self._counters:  # all at once
                counter([text for _, reader, _, texts in long if reader.count is counter for text in texts])
            for index, reader, limit, texts in long:
                if (num_tokens := max(reader.count(texts))) > limit:
                    self.num_rows += 1
                    first = CutPrompt(row_index=index, num_tokens=num_tokens, limit=limit)
                    self.first = self.first or first
        except (Ended, ModelError) as error:
            log.warning("tokens of prompts are no longer counted: %s", error)
            self.is_counted = False

    def _long_texts(self, row: IdentifiedRow) -> tuple[int, TextReader, int, list[str]] | None:
        """Return the prompts of a row that may be too long, with the text encoder and its limit."""
        shared = row.common.request.arguments  # all but the row's own texts
        reader = reader_for(self._readers, shared)
        if reader is None or (limit := reader.limit(shared)) is None:
            return None
        every = (text for text in (*row.texts, *shared.values()) if isinstance(text, str))
        if not any(_may_be_longer(text, limit) for text in every):
            return None  # quickly, since this is so for most of a million rows
        texts = [text for text in texts_read(row.request().arguments) if _may_be_longer(text, limit)]
        return (row.index, reader, limit, texts) if texts else None


def _may_be_longer(text: str, limit: int) -> bool:
    return len(text.encode("utf-8", "replace")) + _MARKS > limit


class _Counter:
    """Counts the tokens of texts with a model's tokenizer."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[str, int] = {}

    def __call__(self, texts: list[str]) -> list[int]:
        if len(self._known) > _MAX_KNOWN:
            self._known.clear()
        if new := [text for text in dict.fromkeys(texts) if text not in self._known]:
            counts = LIBRARY_PROCESS.ask(count_tokens, str(self._folder), new)
            self._known |= dict(zip(new, counts, strict=True))
        return [self._known[text] for text in texts]


def count_tokens(folder: str, texts: list[str]) -> list[int]:
    """Return the number of tokens of each text, with the tokenizer in a folder. ModelError if it fails.

    Runs in the libraries' process, as tokenizers come with models and are not trusted.
    """
    os.environ[_PARALLELISM] = "false"
    try:
        count = _stored_in(folder)
        bound_memory(_MAX_BYTES)
        return count(texts)
    except BaseException as error:  # tokenizers in Rust may panic
        problem = f"the tokenizer fails: {type(error).__name__}: {error}"[:300]
        raise ModelError(problem, "download the model again") from error


@cache
def _stored_in(folder: str) -> Count:
    from transformers import AutoTokenizer

    from framefleet.pipeline.model.sources.verified_folder import alone  # imports torch

    with alone():
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    return token_counter(tokenizer)
