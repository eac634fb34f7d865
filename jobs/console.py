"""How commands speak: results on stdout, everything else on stderr, the outcome as an exit code."""

from __future__ import annotations

import logging
import shlex
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import typer
from rich.console import Console
from rich.text import Text

from framefleet.pipeline.errors import FramefleetError

INTERRUPTED, TERMINATED = 130, 143  # 128 + the signal's number, as shells have it

# Both honour NO_COLOR. Not highlighted: numbers in a sentence are part of it.
stderr = Console(stderr=True, highlight=False)
stdout = Console(highlight=False)


@contextmanager
def reporting(*, verbose: bool, resumable: bool = False) -> Iterator[None]:
    """Turn what ends a command into lines on stderr and its exit code.

    resumable: after an interruption, say how to go on.
    """
    _log_to_stderr(verbose)
    terminated: list[int] = []  # noted, for on its way up the exception may become a plain KeyboardInterrupt

    def terminate(number: int, _frame: FrameType | None) -> None:
        terminated.append(number)
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    except FramefleetError as error:
        if verbose:
            traceback.print_exc()
        complain(error.problem, error.fix)
        raise typer.Exit(error.exit_code) from None
    except KeyboardInterrupt:
        if resumable:
            complain("interrupted; what was finished is kept", f"to go on: {this_command()}")
        raise typer.Exit(TERMINATED if terminated else INTERRUPTED) from None
    finally:
        signal.signal(signal.SIGTERM, previous)


def complain(problem: str, fix: str = "") -> None:
    """Say what is wrong, and what to do about it."""
    _labelled("error: ", "bold red", problem)
    if fix:
        _labelled("hint: ", "cyan", fix)


def this_command() -> str:
    """Return the command that was typed."""
    return shlex.join(["framefleet", *sys.argv[1:]])


def _labelled(label: str, style: str, text: str) -> None:
    stderr.print(Text(label, style=style).append(text, style="default"), soft_wrap=True)


class _ToStderr(logging.Handler):
    """Through the console: it keeps lines off a progress display."""

    def emit(self, record: logging.LogRecord) -> None:
        style = "yellow" if record.levelno >= logging.WARNING else "dim"
        _labelled(f"{record.levelname.lower()}: ", style, self.format(record))


def _log_to_stderr(verbose: bool) -> None:
    logger = logging.getLogger("framefleet")
    logger.setLevel(logging.DEBUG if verbose else logging.WARNING)
    if not logger.handlers:
        logger.addHandler(_ToStderr())
    logger.propagate = False
