"""Ask torch, diffusers and transformers about a model's configs in a separate process.

Configs of strangers may crash it, or make it take any amount of memory. And our process does not need to
import the libraries, which takes seven seconds.
"""

from __future__ import annotations

import gc
import json
import pickle
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from multiprocessing.connection import Connection
from operator import attrgetter
from typing import Any

from framefleet.pipeline import errors
from framefleet.pipeline.guards.json_text import parse_json
from framefleet.pipeline.guards.sandbox import Sandboxes, serve

_NAME = "framefleet.pipeline.model.library_process"  # the module's name, which is __main__ in the process
_MAX_SILENCE_S = 120.0  # imports take most of it


class LibraryProcess:
    """Answers questions, one at a time, in a process that ends with its last user.

    Several threads may use it: each gets a process.
    """

    def __init__(self, *, max_silence_s: float = _MAX_SILENCE_S) -> None:
        """max_silence_s: how long an answer may take."""
        self._boxes = Sandboxes(_NAME, max_silence_s=max_silence_s, work="called the libraries")
        self._num_users, self._lock = 0, threading.Lock()

    @property
    def is_in_use(self) -> bool:
        return self._num_users > 0

    @contextmanager
    def use(self) -> Iterator[None]:
        """Answer all questions of the block in one process, and not each in a new one.

        It uses as much memory as a worker without a model.
        """
        with self._lock:
            self._num_users += 1
        try:
            yield
        finally:
            with self._lock:
                self._num_users -= 1
                if not self._num_users:
                    self._boxes.close()

    def ask(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function of our modules in the process, with plain values in and plain values out.

        Raises UserError if the function does, and Ended if the process ends. The question is our own pickle;
        the answer is not a pickle, because the process has read files of strangers.
        """
        question = pickle.dumps((function.__module__, function.__qualname__, arguments))
        with self.use(), self._boxes.one() as box:
            box.send(question)
            answer = parse_json(box.receive())
        if error := answer.get("error"):
            raise getattr(errors, error)(answer["problem"], answer["fix"])
        return answer["value"]


LIBRARY_PROCESS = LibraryProcess()


def _answer(connection: Connection) -> None:
    module, name, arguments = pickle.loads(connection.recv_bytes())
    try:
        answer = {"value": attrgetter(name)(import_module(module))(*arguments)}
    except errors.UserError as error:
        answer = {"error": type(error).__name__, "problem": error.problem, "fix": error.fix}
    connection.send_bytes(json.dumps(answer).encode())


if __name__ == "__main__":
    # Objects made by imports stay, and collecting garbage among them would take a fifth of the time.
    gc.set_threshold(100_000, 50, 50)
    serve(_answer)
