"""The sandbox that decodes files to see that they can be: a file in; what it holds out."""

from __future__ import annotations

import json
from dataclasses import asdict
from multiprocessing.connection import Connection

from framefleet.pipeline.errors import InputError
from framefleet.pipeline.guards.sandbox import bound_memory, serve
from framefleet.pipeline.model.specs.references import MediaKind
from framefleet.pipeline.rows.inputs.pictures import decoding_bytes, describe

# To open a file, before it is decoded: for what a container lists of its frames; for what libwebp reserves,
# but does not touch yet, for its largest picture, which is then refused by its size.
OPENING: dict[MediaKind, int] = {"video": 256 << 20, "image": 5 << 29, "audio": 256 << 20}
MORE = 256 << 20  # than decoding should take
# The kinds of answers, their first byte.
COST, DESCRIBED, REFUSAL = b"c", b"d", b"r"


def main() -> None:
    serve(_answer)


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
    main()
