"""What Ray starts as a worker's Python where workers are forks: asks for the fork, and stands for it.

Run as a program by the path of a socket and the arguments that Python would get. Ends with the fork and its
exit code; the fork ends with it. Where there is no fork to be had, it becomes the Python that was asked for.
Imports the standard library alone: it starts while the machine is busy.
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
    """Return the exit code of a fork; None where there was none."""
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
