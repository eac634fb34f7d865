"""Call a user's score in a separate process.

A process that has run a user's code may not render, so workers never import the module of such a score.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from framefleet.api.clips import Frames
from framefleet.pipeline.guards.named_function import named_function
from framefleet.pipeline.guards.sandbox import Ended, Sandboxes, serve
from framefleet.pipeline.outputs.columns import NoValue

_MAX_S = 600.0  # measuring a clip of an hour frame by frame takes a minute
_processes = Sandboxes(__name__, max_silence_s=_MAX_S)


@dataclass(frozen=True, slots=True)
class UsersScore:
    """A user's score, by the name of its function. Thread-safe."""

    name: str  # module:function
    folder: str | None  # with its module, besides the current folder

    def __call__(self, frames: Frames, record: Mapping[str, Any]) -> float | None:
        """Return the score of a clip. Raises NoValue if the function did not return a number."""
        try:
            with _processes.one() as process:
                process.send(pickle.dumps((self.name, self.folder, frames.shape, dict(record))))
                process.send(frames.data.cast("B") if frames.size else b"")
                answer = json.loads(process.receive())
        except Ended as ended:
            raise NoValue(f"the clip cannot be measured: {ended}") from None
        if "error" in answer:
            raise NoValue(answer["error"])
        number: float | None = answer["number"]
        return number if number is None else float(number)


def _answer(connection: Connection) -> None:
    name, folder, shape, record = pickle.loads(connection.recv_bytes())
    frames = np.frombuffer(connection.recv_bytes(), np.uint8).reshape(shape)  # read-only
    try:
        function = named_function(name, "score", folder=folder)
        score: Any = function(frames, record)
        number = score.item() if hasattr(score, "item") else score  # raises for several numbers
        if number is not None and not isinstance(number, bool | int | float):
            raise TypeError(f"it returned {type(score).__name__}, not a number")
        answer: dict[str, Any] = {"number": number}
    except (Exception, SystemExit) as error:  # a user's function may call sys.exit
        answer = {"error": f"{type(error).__name__}: {error}"}
    connection.send_bytes(json.dumps(answer).encode())


if __name__ == "__main__":
    serve(_answer)
