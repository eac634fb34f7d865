"""From the bytes of a file to what it holds, found out in a sandbox, which runs this file."""

from __future__ import annotations

import json
import os
import threading
from dataclasses import asdict
from multiprocessing.connection import Connection

from framefleet.pipeline.errors import InputError
from framefleet.pipeline.guards.sandbox import Ended, Sandboxes, bound_memory, serve
from framefleet.pipeline.model.specs.signature import MediaKind
from framefleet.pipeline.rows.inputs.budget import DECODING
from framefleet.pipeline.rows.inputs.pictures import Described, decoding_bytes, describe

MAX_DECODING_S = 600.0  # some ten times what the largest video takes that is allowed
# To open a file, before it is decoded: for what a container lists of its frames; for what libwebp reserves,
# but does not touch yet, for its largest picture, which is then refused by its size.
OPENING: dict[MediaKind, int] = {"video": 256 << 20, "image": 5 << 29, "audio": 256 << 20}
MORE = 256 << 20  # than decoding should take
# The kinds of answers, their first byte.
COST, DESCRIBED, REFUSAL = b"c", b"d", b"r"


class Describer:
    """Says what files hold, several at a time. For several threads."""

    def __init__(self) -> None:
        self._boxes = Sandboxes(__name__, max_silence_s=MAX_DECODING_S)
        self._cores = threading.Semaphore(os.cpu_count() or 1)

    def describe(self, content: bytes, kind: MediaKind) -> Described:
        """Return what the file holds, all of it decoded. Raises InputError."""
        try:
            with self._cores, self._boxes.one() as box:
                box.send(json.dumps({"kind": kind, "size": len(content)}).encode())
                box.send(content)
                answer = box.receive()
                if answer[:1] == COST:
                    with DECODING.take(int(answer[1:])):
                        box.send(b"go on")
                        answer = box.receive()
        except Ended as error:
            problem = f"it cannot be read: {error}"
            raise InputError(problem, "convert it, e.g. to png, or to H.264 in mp4") from None
        values = json.loads(answer[1:])
        if answer[:1] == REFUSAL:
            raise InputError(*values)
        return Described(**values)

    def close(self) -> None:
        self._boxes.close()


def _answer(connection: Connection) -> None:
    """Answer one request: what decoding takes is reported first, and waits for a word before it starts."""
    request = json.loads(connection.recv_bytes())
    kind, size = request["kind"], request["size"]
    bound_memory(3 * size + OPENING[kind])  # the content, and a copy while it is received, or by a decoder
    content = connection.recv_bytes()
    try:
        cost = decoding_bytes(content, kind)
        connection.send_bytes(COST + str(cost).encode())
        connection.recv_bytes()
        bound_memory(cost + size + MORE)
        answer = DESCRIBED + json.dumps(asdict(describe(content, kind))).encode()
    except InputError as error:
        answer = _refused(error)
    except MemoryError:
        answer = _refused(InputError("it takes more memory to decode than it should", "write it again"))
    connection.send_bytes(answer)


def _refused(error: InputError) -> bytes:
    return REFUSAL + json.dumps([error.problem, error.fix]).encode()


if __name__ == "__main__":
    serve(_answer)
