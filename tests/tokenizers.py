"""Stand-ins for the tokenizers of models, which may be anybody's: what they do when they are called."""

from __future__ import annotations

import os
import signal
import time
from typing import Any


def bytes_of(texts: list[str], **_: Any) -> dict[str, list[bytes]]:
    return {"input_ids": [text.encode("utf-8", "surrogatepass") for text in texts]}


def hanging(texts: list[str], **_: Any) -> None:
    time.sleep(600)


def failing(texts: list[str], **_: Any) -> None:
    raise KeyError("a token")


def growing(texts: list[str], **_: Any) -> None:
    bytearray(1 << 40)


def crashing(texts: list[str], **_: Any) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)
