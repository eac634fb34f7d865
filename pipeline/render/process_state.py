"""What a row's code may change of the process around it: compared when its turn ends, and put back.

Not covered: files, and other threads. What modules hold is compared in `module_state.py`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_COMPILERS = "torch"  # whose loggers get handlers once it compiles


def process_state() -> dict[str, Any]:
    """Return what differs once code has changed it, by what it is called."""
    loggers = [logging.root, *logging.root.manager.loggerDict.values()]
    return {
        "the working folder": os.getcwd(),
        "environment variables": os.environ.copy(),
        "handlers of logs": [
            (logger.name, handler)
            for logger in loggers
            if isinstance(logger, logging.Logger) and not logger.name.startswith(_COMPILERS)
            for handler in logger.handlers
        ],
        "filters of warnings": (warnings.showwarning, [*warnings.filters]),
        "standard output": (sys.stdout, sys.stderr),
        "the path of imports": [*sys.path],
        "the running event loop": asyncio._get_running_loop(),
    }


def changed_since(before: dict[str, Any]) -> str | None:
    """Return the first that is another now."""
    now = process_state()
    return next((name for name, value in before.items() if value != now[name]), None)


@contextmanager
def kept_surroundings() -> Iterator[None]:
    """Put back the working folder, the environment and the path of imports when the block ends."""
    folder, variables, path = os.getcwd(), os.environ.copy(), [*sys.path]
    try:
        yield
    finally:
        os.chdir(folder)
        for name in os.environ.keys() - variables.keys():
            del os.environ[name]
        os.environ.update({name: value for name, value in variables.items() if os.environ.get(name) != value})
        sys.path[:] = path
