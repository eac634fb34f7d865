"""The sandbox that counts the tokens of prompts: a pickled `PromptLengths` in, then texts; numbers out."""

from __future__ import annotations

import json
import os
import pickle
from multiprocessing.connection import Connection

from framefleet.pipeline.guards.sandbox import bound_memory, serve
from framefleet.pipeline.rows.prompt_lengths import PromptLengths

_MAX_BYTES = 2 << 30  # more than the process has with its tokenizer


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
