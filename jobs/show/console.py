"""How commands speak: results on stdout, everything else on stderr, the outcome as an exit code.

Text comes from tables, models, stores and libraries. A terminal obeys what is in it (titles, the clipboard,
the cursor), so all text is escaped when it is written. What libraries would print between a command's own
lines is silenced.
"""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import sys
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from types import FrameType
from typing import IO, Any, TextIO, cast

from rich.console import Console, ConsoleDimensions, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.status import Status
from rich.text import Text

from framefleet.cluster.driver.stop import SIGNALS
from framefleet.pipeline import errors
from framefleet.pipeline.errors import FramefleetError, ServiceError, escaped
from framefleet.pipeline.guards.redaction import HIDDEN, is_secret_name, public_text
from framefleet.pipeline.model.options.torchao_import import keep_import_warnings
from framefleet.pipeline.plugin import plugin_raising, sections

BROKEN_PIPE = 141  # 128 + SIGPIPE, as shells have it
# Colours, and the way back to the start of a line or to the one above: progress bars of libraries.
CONTROLS_BUT_MOVES = re.compile(rf"(?:\x1b\[[0-9;]*m|\x1b\[A|\r)|({errors.CONTROL})")
SUBMITTED = "FRAMEFLEET_SUBMITTED"  # set where a cluster runs the command of a submitted job
VERBOSITY = ("DIFFUSERS_VERBOSITY", "TRANSFORMERS_VERBOSITY")  # read when they are imported


def guard_streams() -> None:
    """Put both streams of this process under the rules above, for as long as it lives."""
    sys.stdout = _guarded(sys.stdout)
    sys.stderr = _guarded(sys.stderr)


class GuardedStream:
    """A text stream that escapes text, hides secrets, and shows no traceback when nobody reads it any more.

    styled: the same stream, for text that is escaped already and has our own colours around it.
    """

    def __init__(self, stream: TextIO, *, escape: bool = True) -> None:
        self._stream = stream
        self._escape = escape
        self.styled = GuardedStream(stream, escape=False) if escape else self

    def write(self, text: str) -> int:
        shown = public_text(text)
        if self._escape and self.isatty():
            shown = CONTROLS_BUT_MOVES.sub(
                lambda match: errors.spelt(match[1]) if match[1] else match[0], shown
            )
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
        """End the command, unless only its messages are lost: a render continues without its log."""
        # Python flushes once more at the end, and would complain about what is still in the buffer.
        os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
        if self._stream is sys.__stderr__:
            return
        if isinstance(error, BrokenPipeError):  # as under `| head`
            raise SystemExit(BROKEN_PIPE) from None
        problem = f"standard output cannot be written: {error.strerror}"
        raise ServiceError(problem, "make room for it") from None


def _guarded(stream: TextIO | None) -> TextIO:
    if stream is None:  # the process that started us has closed it
        stream = open(os.devnull, "w")  # noqa: SIM115  # for as long as the process lives
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="backslashreplace")  # what an ASCII terminal or pipe cannot show
    return cast("TextIO", GuardedStream(stream))


def quiet_imports() -> None:
    """Silence diffusers and transformers without importing them, which takes seconds."""
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


INTERRUPTED = 130  # 128 + the signal's number, as shells have it: 143 of SIGTERM, 129 of SIGHUP
DEFECT = 70  # sysexits.h: internal software error
MAX_SAID = 500  # characters of an exception's text: some quote whole files


_UNCUT = 1000  # columns, more than any line has: a line that is cut cannot be searched


class EscapingConsole(Console):
    """A console that prints text as it is: no markup, no emoji codes, no control characters.

    Numbers are not highlighted, as they are part of a sentence. Honours NO_COLOR. about: None for plain text;
    else lines are JSON, with these fields.
    """

    about: dict[str, str] | None = None

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    @property
    def size(self) -> ConsoleDimensions:
        """The size of a terminal or a notebook; in a pipe or a file, nothing is cut."""
        size = super().size
        return size if self.is_terminal or self.is_jupyter else size._replace(width=_UNCUT)

    @size.setter
    def size(self, size: tuple[int, int]) -> None:
        self._width, self._height = size

    @property
    def file(self) -> IO[str]:
        file = super().file
        return getattr(file, "styled", file)

    @file.setter
    def file(self, new_file: IO[str]) -> None:
        self._file = new_file

    def say(self, text: str | Text, *, level: str = "info", **about: str) -> None:
        """Print text without wrapping its lines. level, about: fields of a JSON line, if not empty."""
        if self.about is not None:
            values = {name: value for name, value in about.items() if value}
            at = datetime.now(UTC).isoformat(timespec="milliseconds")
            text = json.dumps({"time": at, "level": level, **self.about, **values, "message": str(text)})
        self.print(text, soft_wrap=True)

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(escaped(text), **options)  # before it is measured, as cells of tables are

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(escaped(segment.text), segment.style)

    def status(self, status: RenderableType, **options: Any) -> Status:
        return super().status(Text(status) if isinstance(status, str) else status, **options)


stderr = EscapingConsole(stderr=True)
stdout = EscapingConsole()


@contextmanager
def reporting(*, verbose: bool, resumable: bool = False, log_format: str = "text") -> Iterator[None]:
    """Turn what ends a command into lines on stderr and its exit code.

    resumable: after an interruption, say how to continue. log_format: of all lines on stderr, text or json.
    """
    stderr.about = {} if log_format == "json" else None
    logger = logging.getLogger("framefleet")
    logger.setLevel(logging.DEBUG if verbose else logging.WARNING)
    if not any(isinstance(handler, _ToStderr) for handler in logger.handlers):
        logger.addHandler(_ToStderr())
    logger.propagate = False
    quiet_imports()
    signals: list[int] = []  # noted, as the exception may become another one on its way up

    def interrupt(number: int, _frame: FrameType | None) -> None:
        is_first = not signals
        signals.append(number)
        if is_first or number == signal.SIGINT:  # other signals may be sent twice
            raise KeyboardInterrupt

    previous = {number: signal.getsignal(number) for number in SIGNALS}
    heeded = {number: old for number, old in previous.items() if old not in (signal.SIG_IGN, None)}
    for number in heeded:  # without those that we ignore, e.g. SIGINT in background jobs of a shell
        signal.signal(number, interrupt)
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        if type(error).__module__.startswith(("click.", "typer.")):  # an exit code, or a wrong option
            raise
        is_interrupted = isinstance(error, KeyboardInterrupt) or (
            bool(signals) and not isinstance(error, FramefleetError)
        )
        if is_interrupted:
            if resumable:
                complain("interrupted", f"to continue: {this_command()}")
            raise SystemExit(128 + signals[0] if signals else INTERRUPTED) from None
        if verbose:
            stderr.say(traceback.format_exc())
        raise SystemExit(_report(error)) from None
    finally:
        stderr.about = None
        for number, old in heeded.items():
            signal.signal(number, old)


def _report(error: BaseException) -> int:
    """Print why a command failed; return its exit code."""
    code, text = errors.exit_code_of(error), str(error).strip().partition("\n")[0][:MAX_SAID]
    if isinstance(error, FramefleetError):
        complain(error.problem, error.fix)
    elif isinstance(error, MemoryError):
        complain("out of memory", "close other programs, then run the same command again")
    elif code == ServiceError.exit_code:
        complain(text, "make room, then run the same command again")
    elif code:
        complain(text, "check the path and its permissions")
    else:
        plugin = plugin_raising(error)
        culprit = f"the plugin {plugin}" if plugin else "framefleet"
        complain(
            f"a bug in {culprit}: {type(error).__name__}: {text}",
            "run it again with --verbose, and report what it prints",
        )
    return code or DEFECT


def complain(problem: str, fix: str = "") -> None:
    """Print what is wrong, and what to do about it."""
    _labelled("error: ", "bold red", problem)
    if fix:
        _labelled("hint: ", "cyan", fix)


def this_command() -> str:
    """Return the command that was typed, without its secrets; for a submitted job, what to do instead."""
    if os.environ.get(SUBMITTED):
        return "submit the job again"
    typed = sys.argv[1:]
    shown = [_shown(argument) for argument in typed]
    return errors.command(*shown) + (" (its secrets are not shown)" if shown != typed else "")


def _shown(argument: str) -> str:
    """Return an argument without secrets: values are hidden by their key, with or without `--set=`."""
    name, equals, value = argument.partition("=")
    if name.startswith("--") and equals:
        return f"{name}={_shown(value)}"
    is_secret = "://" not in name and (is_secret_name(name) or _is_private(name))
    return f"{name}={HIDDEN}" if equals and is_secret else public_text(argument)


def _is_private(name: str) -> bool:
    """Return whether a key may hold what job.json must not have, e.g. arguments of `on_end.command`."""
    section_name, _, key = name.partition(".")
    section = sections().get(section_name)
    if section is None or section.is_stored:
        return False
    field = section.model_fields.get(key)
    return field is None or not field.repr


def _labelled(label: str, style: str, text: str, **about: str) -> None:
    if stderr.about is not None:
        stderr.say(text, level=label.removesuffix(": "), **about)
        return
    # Escaped first: a Text silently drops some control characters.
    stderr.say(Text(label, style=style).append(escaped(text), style="default"))


class _ToStderr(logging.Handler):
    """Logs through the console, which keeps lines off a progress display."""

    def emit(self, record: logging.LogRecord) -> None:
        style = "yellow" if record.levelno >= logging.WARNING else "dim"
        about = {name: str(getattr(record, name, "")) for name in ("worker", "row_id")}
        _labelled(f"{record.levelname.lower()}: ", style, self.format(record), **about)
