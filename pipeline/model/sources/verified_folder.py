"""Load a model from a folder that has exactly the hashed files, without network or questions.

Libraries cannot find files outside of this folder, whatever their next release looks for. They also download
what a config names, and ask at the terminal whether to run code: both are refused here.
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
# More than in the largest mixtures of experts. A config may ask for any number of layers, and libraries make
# them before they look for the weights.
MAX_MODULES = 50_000
_MAX_SHOWN = 500  # characters of a library's own message

_is_alone: ContextVar[bool] = ContextVar("_is_alone", default=False)


@contextmanager
def sealed(folder: Path, files: Iterable[str]) -> Iterator[Path]:
    """Yield a folder with links to these files of `folder`, and nothing else, to load them from.

    Raises ModelError in place of any error of a library, and if it asks for the network or at the terminal.
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
            if (first := _first_of(error)) is not error:  # diffusers raises one text for all
                problem = f"{type(first).__name__}: {first}".replace(name, str(folder))[:_MAX_SHOWN]
                message = f"{message} ({problem})"
            fix = "fetch the model again"
            if isinstance(error, MemoryError) or "alloc" in str(error):
                fix = "it takes more memory than there is; if it should not, its configs are damaged: " + fix
            raise ModelError(f"{folder} cannot be loaded: {message}", fix) from error


def _first_of(error: BaseException) -> BaseException:
    """Return the error in whose handling this one was raised, and so on."""
    while before := error.__cause__ or (None if error.__suppress_context__ else error.__context__):
        error = before
    return error


@contextmanager
def bounded_modules(folder: Path) -> Iterator[None]:
    """Raise ModelError if this thread makes a network with more modules than any real one."""
    count, thread = itertools.count(), threading.get_ident()

    def counted(*_: Any) -> None:
        if threading.get_ident() == thread and next(count) > MAX_MODULES:
            problem = f"{folder}: its configs ask for networks with more than {MAX_MODULES:,} modules"
            raise ModelError(problem, "they are damaged: fetch the model again")

    hook = register_module_module_registration_hook(counted)
    try:
        yield
    finally:
        hook.remove()


@contextmanager
def alone() -> Iterator[None]:
    """Refuse connections, and questions at the terminal, in this thread."""
    _watch()
    token = _is_alone.set(True)
    try:
        yield
    finally:
        _is_alone.reset(token)


@cache
def _watch() -> None:
    """Add an audit hook for connections (PEP 578). It cannot be removed, and costs 0.1 us for each event."""
    sys.addaudithook(_refuse)


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    if event not in _EVENTS or not _is_alone.get():
        return
    what = "permission to run its own code"
    if event == "socket.connect" and arguments[0].family not in INTERNET:
        return
    if event != "builtins.input":
        what = f"a connection to {arguments[0] if event == 'socket.getaddrinfo' else arguments[1][0]}"
    fix = "use a model that is complete and has no code"
    raise ModelError(f"a config of the model asks for {what}", fix)
