"""A recipe that notes when it begins which row, and waits or fails where a host is asked to.

`recipe: tools.chaos.traced:generate`. Its trace shows what no output does: rows begun more than once.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from framefleet.pipeline.recipes import catalog
from framefleet.pipeline.request import Request

TRACE = "CHAOS_TRACE"  # in the environment of workers: the file that all of them write to
LOOK_S = 0.05


@dataclass(frozen=True, slots=True)
class Begun:
    """A row that a worker began to render. at_s: of the machine's clock, which all hosts share."""

    seed: int
    pid: int
    host: str
    at_s: float


def generate(pipe: Any, request: Request) -> Any:
    """Render the row by a plain call, as soon as its host's gate is open."""
    trace, host = Path(os.environ[TRACE]), socket.gethostname()
    note = os.open(trace, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:  # one write to the end of a file is whole, whoever else writes
        os.write(note, f"{request.seed} {os.getpid()} {host} {time.time()}\n".encode())
    finally:
        os.close(note)
    while gate(trace, host).exists():
        time.sleep(LOOK_S)
    if sickness(trace, host).exists():
        raise OSError(errno.EIO, "Input/output error")
    return catalog.generate(pipe, request)


def gate(trace: Path, host: str) -> Path:
    """Return the file that closes the gate of a host, while it is there."""
    return trace.with_name(f"closed-{host}")


def sickness(trace: Path, host: str) -> Path:
    """Return the file that makes every row fail on a host, while it is there."""
    return trace.with_name(f"sick-{host}")


def read_trace(trace: Path) -> list[Begun]:
    """Return what was begun, in order of time."""
    lines = trace.read_text().splitlines() if trace.exists() else []
    begun = (line.split() for line in lines)
    return [Begun(int(seed), int(pid), host, float(at_s)) for seed, pid, host, at_s in begun]
