"""How many tokens a row's prompts have, and how many of them the model's text encoders read.

Rows of equal lengths share forwards that are as long as these. A driver counts in a sandbox, which runs this
file: a pickled `PromptLengths` in, then texts; numbers out. A tokenizer is a model's own, and may hang, crash
or grow: then prompts are not counted any more, and rows of equal lengths meet less often.
"""

from __future__ import annotations

import json
import logging
import os
import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from framefleet.pipeline.errors import ModelError
from framefleet.pipeline.guards.sandbox import Ended, Sandbox, bound_memory, serve

log = logging.getLogger(__name__)
_T = TypeVar("_T")

PROMPT = "prompt"
_ENDLESS = 1_000_000  # tokenizers that know no bound say 10**30
# Four thousand prompts take a second; those of a tokenizer in Python some ten.
MAX_COUNTING_S = 30.0
_MAX_STARTING_S = 120.0  # of its process, most of it for imports
_PARALLELISM = "TOKENIZERS_PARALLELISM"  # a thread of each core reserves memory, which is bounded
_MAX_BYTES = 2 << 30  # more than the process has with its tokenizer


def texts_of(arguments: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Return the prompts among a row's arguments, by name."""
    prompts = ((name, value) for name, value in arguments.items() if "prompt" in name)
    return tuple(sorted((name, value) for name, value in prompts if isinstance(value, str)))


class PromptLengths:
    """Counts tokens as one tokenizer of a model does. Can be pickled."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> list[tuple[int, ...]]:
        """Return `lengths_by` this tokenizer. Raises whatever it raises: it is a model's own."""
        return lengths_by(self.count, rows)

    def count(self, texts: list[str]) -> list[int]:
        return [len(ids) for ids in self._tokenizer(texts, padding=False, truncation=False)["input_ids"]]


def count_tokens(folder: str, texts: list[str]) -> list[int]:
    """Return how many tokens each text has for the tokenizer in a folder. Raises ModelError where it fails.

    For the libraries' process: a tokenizer is a model's own.
    """
    os.environ[_PARALLELISM] = "false"
    try:
        lengths = _stored_in(folder)
        bound_memory(_MAX_BYTES)
        return lengths.count(texts)
    except BaseException as error:  # a tokenizer's own, also the panics of one in Rust
        raise ModelError(_failure(error), "download the model again") from error


@cache
def _stored_in(folder: str) -> PromptLengths:
    from transformers import AutoTokenizer

    from framefleet.pipeline.model.sources.verified_folder import alone  # imports torch

    with alone():
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    return PromptLengths(tokenizer)


def _failure(error: BaseException) -> str:
    return f"the tokenizer fails: {type(error).__name__}: {error}"[:300]


def lengths_by(
    count: Callable[[list[str]], list[int]], rows: Sequence[Mapping[str, Any]]
) -> list[tuple[int, ...]]:
    """Return the lengths of each row's prompts in tokens, counted at once. rows: their arguments."""
    texts = [texts_read(arguments) for arguments in rows]
    distinct = list(dict.fromkeys(text for own in texts for text in own))
    lengths = dict(zip(distinct, count(distinct) if distinct else (), strict=True))
    return [tuple(lengths[text] for text in own) for own in texts]


def texts_read(arguments: Mapping[str, Any]) -> list[str]:
    """Return the prompts that the pipeline reads: no negative one where the row switches guidance off."""
    scale = arguments.get("true_cfg_scale", arguments.get("guidance_scale"))
    is_unguided = isinstance(scale, int | float) and scale <= 1
    return [text for name, text in texts_of(arguments) if not (is_unguided and name.startswith("negative"))]


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
        length = arguments.get("max_sequence_length")
        if type(length) is int and "CLIP" not in self.class_name:
            return length
        own = self.max_length
        return int(own) if isinstance(own, int | float) and 0 < own < _ENDLESS else None


def reader_for(readers: Sequence[TextReader], arguments: Mapping[str, Any]) -> TextReader | None:
    """Return the one that reads most of a row's prompts; None where the model has none."""
    return max(readers, key=lambda reader: reader.limit(arguments) or _ENDLESS, default=None)


def reading_of(readers: Sequence[TextReader], arguments: Mapping[str, Any]) -> PromptReading | None:
    """Return how much is read of a row's prompts; None without any. Raises what the tokenizer raises."""
    reader, prompt = reader_for(readers, arguments), arguments.get(PROMPT)
    if reader is None or not isinstance(prompt, str):
        return None
    limit = reader.limit(arguments)
    num_tokens, *others = reader.count([prompt, *texts_read(arguments)])
    longest = max([num_tokens, *others])
    is_cut = None if limit is None else longest > limit
    return PromptReading(num_tokens=num_tokens, limit=limit, is_cut=is_cut)


class CountedApart:
    """Counts as a worker's `PromptLengths` does, once it is ready: that takes seconds, and nobody waits."""

    def __init__(self, pickled: bytes, *, max_counting_s: float = MAX_COUNTING_S) -> None:
        """pickled: the `PromptLengths`, which are not opened in this process."""
        self._box = Sandbox(__name__, max_silence_s=max_counting_s)
        self._is_ready = self._is_over = False
        self._ask(lambda: self._box.send(pickled))

    def becomes_ready(self, *, is_awaited: bool = False) -> bool:
        """Return True once: when it can count. is_awaited: wait until it can, or never will."""
        if self._is_ready or self._is_over or not (is_awaited or self._box.has_message()):
            return False
        self._is_ready = self._ask(lambda: self._answer(within_s=_MAX_STARTING_S)) is not None
        return self._is_ready

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> list[tuple[int, ...]] | None:
        """Return the lengths of each row's prompts, by its arguments; None where they are not counted."""
        is_counting = self._is_ready and not self._is_over
        return self._ask(lambda: lengths_by(self._counted, rows)) if is_counting else None

    def close(self) -> None:
        self._is_over = True
        self._box.end()

    def _counted(self, texts: list[str]) -> list[int]:
        self._box.send(json.dumps(texts).encode())
        return self._answer()

    def _answer(self, *, within_s: float | None = None) -> list[int]:
        answer = json.loads(self._box.receive(within_s=within_s))
        if isinstance(answer, str):
            raise Ended(answer)
        return list(answer)

    def _ask(self, ask: Callable[[], _T]) -> _T | None:
        """Return what comes of a question; None, and the end of it, where that fails."""
        try:
            return ask()
        except Ended as error:
            log.warning("the tokens of prompts are not counted any more: %s", error)
            self.close()
            return None


def _answer(connection: Connection) -> None:
    """Answer one list of texts after the other with a number for each, or with why they have none."""
    pickled = connection.recv_bytes()  # by a process of ours, to whom its tokenizer did no harm so far
    try:
        lengths: PromptLengths = pickle.loads(pickled)
        counts: list[int] = []
        bound_memory(_MAX_BYTES)
        while True:
            connection.send_bytes(json.dumps(counts).encode())
            counts = lengths.count(json.loads(connection.recv_bytes()))
    except (EOFError, OSError):
        raise
    except BaseException as error:  # a tokenizer's own, also the panics of one in Rust
        connection.send_bytes(json.dumps(_failure(error)).encode())


if __name__ == "__main__":
    os.environ[_PARALLELISM] = "false"
    serve(_answer)
