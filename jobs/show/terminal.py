"""The standard streams of a command: what others wrote reaches no terminal as control, no secret is printed.

Text comes from tables, models, stores and libraries. A terminal obeys what is in it (titles, the clipboard,
the cursor), so it is escaped where it is written, whoever writes it. What libraries would print between a
command's own lines is silenced.
"""

from __future__ import annotations

import os
import re
import sys
from typing import Any, TextIO, cast

from framefleet.pipeline.errors import ServiceError
from framefleet.pipeline.guards.redaction import public_text
from framefleet.pipeline.model.options.torchao_import import keep_import_warnings
from framefleet.pipeline.text import CONTROL, escaped, spelt

BROKEN_PIPE = 141  # 128 + SIGPIPE, as shells have it
# Colours, and the way back to the start of a line or to the one above: progress bars of libraries.
CONTROLS_BUT_MOVES = re.compile(rf"(?:\x1b\[[0-9;]*m|\x1b\[A|\r)|({CONTROL})")
VERBOSITY = ("DIFFUSERS_VERBOSITY", "TRANSFORMERS_VERBOSITY")  # read when they are imported


def guard_streams() -> None:
    """Put both streams of this process under the rules above, for as long as it lives."""
    sys.stdout = _guarded(sys.stdout)
    sys.stderr = _guarded(sys.stderr)


class GuardedStream:
    """A text stream whose texts are escaped and without secrets, and whose end is no traceback.

    styled: the same stream for texts that are escaped already, and have our own colours around them.
    """

    def __init__(self, stream: TextIO, *, escape: bool = True) -> None:
        self._stream = stream
        self._escape = escape
        self.styled = GuardedStream(stream, escape=False) if escape else self

    def write(self, text: str) -> int:
        shown = public_text(text)
        if self._escape and self.isatty():
            shown = CONTROLS_BUT_MOVES.sub(lambda found: spelt(found[1]) if found[1] else found[0], shown)
        elif self._escape:
            shown = escaped(shown)
        try:
            self._stream.write(shown)
        except OSError as error:
            self._lose(error)
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._lose(error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _lose(self, error: OSError) -> None:
        """End the command, unless only its messages are lost: a render goes on when its log does not."""
        # Python flushes once more at the end, and would complain about what is still in the buffer.
        os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
        if self._stream is sys.__stderr__:
            return
        if isinstance(error, BrokenPipeError):  # as under `| head`
            raise SystemExit(BROKEN_PIPE) from None
        raise ServiceError(
            f"standard output cannot be written: {error.strerror}", "make room for it"
        ) from None


def _guarded(stream: TextIO | None) -> TextIO:
    if stream is None:  # closed by whoever started us
        stream = open(os.devnull, "w")  # noqa: SIM115  # for as long as the process lives
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="backslashreplace")  # what an ASCII terminal or pipe cannot show
    return cast(TextIO, GuardedStream(stream))


def quiet_imports() -> None:
    """Silence diffusers and transformers where they may never be imported: importing them takes seconds."""
    keep_import_warnings()
    for variable in VERBOSITY:
        os.environ.setdefault(variable, "error")


def quiet_libraries() -> None:
    """Silence diffusers and transformers: their advice and progress bars are for those who call them."""
    quiet_imports()
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    for library in (diffusers_logging, transformers_logging):
        library.set_verbosity_error()
        library.disable_progress_bar()
