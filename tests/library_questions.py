"""What the tests of the libraries' process ask it."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from framefleet.pipeline.errors import ModelError
from framefleet.pipeline.guards.sandbox import bound_memory


def pid(*words: str) -> list[Any]:
    return [os.getpid(), *words]


def refuse() -> None:
    raise ModelError("it is damaged", "download it again")


def crash() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def eat() -> int:
    bound_memory(128 << 20)
    return len(bytearray(1 << 30))


def read_input() -> str:
    return sys.stdin.readline()
