"""What Ray starts as a worker's Python if workers are forks: asks for a fork, and stands in for it.

Run as a program with the path of a socket and the arguments that Python would get. It ends with the fork and
has its exit code; the fork ends with it. If there is no fork, it becomes the Python that was asked for.
Imports only the standard library, as it starts while the machine is busy.
"""

from __future__ import annotations

import json
import os
import socket
import sys


def main(path: str, arguments: list[str]) -> None:
    """Run `python *arguments`, as a fork of the server if it has one."""
    code = _forked(path, arguments)
    if code is None:
        os.execv(sys.executable, [sys.executable, *arguments])
    sys.exit(code)


def _forked(path: str, arguments: list[str]) -> int | None:
    """Return the exit code of a fork; None if there was none."""
    with socket.socket(socket.AF_UNIX) as server:
        try:
            server.connect(path)
            socket.send_fds(server, [b"."], [0, 1, 2])
            request = {"arguments": arguments, "environment": dict(os.environ), "folder": os.getcwd()}
            server.sendall(json.dumps(request).encode())
            server.shutdown(socket.SHUT_WR)
            if server.recv(1) != b"f":
                return None
        except OSError:  # it is gone, or was never there
            return None
        try:
            return int(server.recv(3) or b"1")  # killed, it sends nothing
        except OSError:
            return 1


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
