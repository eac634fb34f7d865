"""What the tests of sandboxes run in them."""

from __future__ import annotations

import os
import signal
import time
from multiprocessing.connection import Connection

from framefleet.pipeline.guards.sandbox import bound_memory, serve


def main() -> None:
    bound_memory(128 << 20)
    serve(_answer)


def _answer(connection: Connection) -> None:
    match connection.recv_bytes():
        case b"crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        case b"eat":
            connection.send_bytes(str(len(bytearray(1 << 30))).encode())
        case b"sleep":
            time.sleep(60)
        case message:
            connection.send_bytes(f"{os.getpid()} {message.decode()}".encode())


if __name__ == "__main__":
    main()
