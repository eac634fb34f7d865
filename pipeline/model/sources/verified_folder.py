"""Where libraries load a model: a folder of exactly the files that were hashed, and nothing around it.

What is not in the folder they cannot find, whatever their next release looks for. They also ask the network
for what a config names, and at the terminal whether to run code: in here both are refused.
"""

from __future__ import annotations

import itertools
import socket
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from typing import Any

from torch.nn.modules.module import register_module_module_registration_hook

from framefleet.pipeline.errors import FramefleetError, ModelError

_EVENTS = ("socket.getaddrinfo", "socket.connect", "builtins.input")
INTERNET = (socket.AF_INET, socket.AF_INET6)
# More than the largest mixtures of experts have. A config may ask for any number of layers, and they are
# made before their weights are looked for.
MAX_MODULES = 50_000
_MAX_SHOWN = 500  # characters of a library's own message

_is_alone: ContextVar[bool] = ContextVar("_is_alone", default=False)


@contextmanager
def sealed(folder: Path, files: Iterable[str]) -> Iterator[Path]:
    """Yield a folder that holds these files of `folder` and nothing else, as links, while they are loaded.

    Raises ModelError for whatever a library makes of files that it cannot use, and for what it asks for
    next to them.
    """
    with tempfile.TemporaryDirectory(prefix="framefleet-model-") as name:
        place = Path(name)
        for file in files:
            link = place / file
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to((folder / file).resolve())
        try:
            with alone(), bounded_modules(folder):
                yield place
        except FramefleetError:
            raise
        except BaseException as error:
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":  # Rust's
                raise
            message = (str(error).strip() or type(error).__name__).replace(name, str(folder))[:_MAX_SHOWN]
            fix = "fetch the model again"
            if isinstance(error, MemoryError) or "alloc" in str(error):
                fix = "it takes more memory than there is; if it should not, its configs are damaged: " + fix
            raise ModelError(f"{folder} cannot be loaded: {message}", fix) from error


@contextmanager
def bounded_modules(folder: Path) -> Iterator[None]:
    """Raise ModelError where this thread makes a network of more parts than any has."""
    count, thread = itertools.count(), threading.get_ident()

    def counted(*_: Any) -> None:
        if threading.get_ident() == thread and next(count) > MAX_MODULES:
            problem = f"{folder}: its configs ask for networks of more than {MAX_MODULES:,} modules"
            raise ModelError(problem, "they are damaged: fetch the model again")

    hook = register_module_module_registration_hook(counted)
    try:
        yield
    finally:
        hook.remove()


@contextmanager
def alone() -> Iterator[None]:
    """Refuse connections and questions at the terminal to this thread."""
    _watch()
    token = _is_alone.set(True)
    try:
        yield
    finally:
        _is_alone.reset(token)


@cache
def _watch() -> None:
    """Have Python tell us of connections (PEP 578). Such a hook stays, and costs a tenth of a microsecond."""
    sys.addaudithook(_refuse)


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    if event not in _EVENTS or not _is_alone.get():
        return
    what = "leave to run code of its own"
    if event == "socket.connect" and arguments[0].family not in INTERNET:
        return
    if event != "builtins.input":
        what = f"a connection to {arguments[0] if event == 'socket.getaddrinfo' else arguments[1][0]}"
    fix = "use a model that holds all that it needs, and no code"
    raise ModelError(f"a config of the model asks for {what}", fix)
