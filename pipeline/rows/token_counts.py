"""The lengths of prompts, counted in a sandbox: a tokenizer is a model's own, and may hang, crash or grow.

Where it does, prompts are not counted any more: rows of equal lengths meet less often, and nothing else is
lost. The sandbox runs `main`: a pickled `PromptLengths` in, then texts; numbers out.
"""

from __future__ import annotations

import json
import logging
import os
import pickle
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from framefleet.pipeline.guards.sandbox import Ended, Sandbox, bound_memory, serve
from framefleet.pipeline.rows.prompt_lengths import PromptLengths, lengths_by

log = logging.getLogger(__name__)
_T = TypeVar("_T")

# Four thousand prompts take a second; those of a tokenizer in Python some ten.
MAX_COUNTING_S = 30.0
_MAX_BYTES = 2 << 30  # more than the process has with its tokenizer


class CountedApart:
    """Counts as a worker's `PromptLengths` does, once it is ready: that takes seconds, and nobody waits."""

    def __init__(self, pickled: bytes, *, max_counting_s: float = MAX_COUNTING_S) -> None:
        """pickled: the `PromptLengths`, which are not opened in this process."""
        self._box = Sandbox("framefleet.pipeline.rows.token_counts", max_silence_s=max_counting_s)
        self._is_ready = self._is_over = False
        self._asked(lambda: self._box.send(pickled))

    def wait(self) -> None:
        """Wait until it is ready, or never will be."""
        if not self._is_ready and not self._is_over:
            self._is_ready = self._asked(self._answer) is not None

    def becomes_ready(self) -> bool:
        """Tell, once, that it counts from now on."""
        if self._is_ready or self._is_over or not self._box.has_message():
            return False
        self._is_ready = self._asked(self._answer) is not None
        return self._is_ready

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> list[tuple[int, ...]] | None:
        """Return the lengths of each row's prompts; None where they are not counted.

        rows: their arguments.
        """
        is_counting = self._is_ready and not self._is_over
        return self._asked(lambda: lengths_by(self._counted, rows)) if is_counting else None

    def close(self) -> None:
        self._is_over = True
        self._box.end()

    def _counted(self, texts: list[str]) -> list[int]:
        self._box.send(json.dumps(texts).encode())
        return self._answer()

    def _answer(self) -> list[int]:
        answer = json.loads(self._box.receive())
        if isinstance(answer, str):
            raise Ended(answer)
        return list(answer)

    def _asked(self, ask: Callable[[], _T]) -> _T | None:
        """Return what comes of a question; None, and the end of it, where that fails."""
        try:
            return ask()
        except Ended as error:
            log.warning("the tokens of prompts are not counted any more: %s", error)
            self.close()
            return None


def main() -> None:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # a thread of each core reserves memory, which is bounded
    serve(_answer)


def _answer(connection: Connection) -> None:
    """Answer one list of texts after the other with a number for each, or with why they have none."""
    pickled = connection.recv_bytes()  # by a worker of ours, to whom its tokenizer did no harm so far
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
        said = f"the tokenizer fails: {type(error).__name__}: {error}"[:300]
        connection.send_bytes(json.dumps(said).encode())


if __name__ == "__main__":
    main()
