"""Nobody connects while a test runs, nor asks at the terminal."""

from __future__ import annotations

import builtins
import socket
from typing import Any

import pytest


def refuse_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the test fail at whatever tries."""

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("somebody connects, or asks at the terminal")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(builtins, "input", refuse)
