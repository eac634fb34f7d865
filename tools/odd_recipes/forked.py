"""Call a function in a fork of this process, so that nothing it leaves behind is seen afterwards."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from framefleet.cluster.fleet.warm.server import renew_thread_pool

LIMIT_S = 180.0  # a case takes five seconds on an idle machine
LAST_CHARACTERS = 3000  # of stderr, enough for a traceback
_FORK = multiprocessing.get_context("fork")


class ForkError(Exception):
    """The fork crashed, raised or took too long; with the end of its stderr."""


def in_fork(function: Callable[..., Any], *arguments: Any, limit_s: float = LIMIT_S) -> Any:
    """Return `function(*arguments)`, called in a fork. Raises ForkError."""
    with tempfile.TemporaryFile() as log:
        receiver, sender = _FORK.Pipe(duplex=False)
        child = _FORK.Process(target=_send, args=(sender, log.fileno(), function, arguments))
        child.start()
        sender.close()
        try:
            if receiver.poll(limit_s):
                return receiver.recv()
        except EOFError:
            child.join()
            log.seek(0)
            text = log.read().decode(errors="replace")[-LAST_CHARACTERS:]
            raise ForkError(f"exit code {child.exitcode}\n{text}") from None
        finally:
            child.kill()  # a recipe's threads could keep it alive
            child.join()
        raise ForkError(f"no result in {limit_s:.0f} s")


def _send(sender: Connection, log: int, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    os.dup2(log, 2)
    renew_thread_pool()
    sender.send(function(*arguments))
