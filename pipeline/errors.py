"""Every error framefleet raises on purpose: what is wrong, and what to do about it.

FramefleetError
├── UserError             the job, the table or the model must change        exit code 2
│   ├── JobError
│   │   └── OutputInUse       another run renders into the output
│   ├── TableError
│   ├── ModelError
│   ├── RecipeError
│   └── PluginError
├── ServiceError          the world around the job failed; run it again      exit code 3
│   ├── StoreError            refused, missing or invalid: somebody must act  exit code 2
│   │   ├── StoreConflict     other bytes are already stored under that name
│   │   └── NoFile            a folder or a pipe is in a file's place       exit code 2
│   ├── AuthorityError        no time stamp for a signature
│   ├── EndpointError         a service that renders, judges or writes does not answer
│   ├── FleetError
│   └── BrokenWorker          its process cannot render any more, another one can
└── RowError              one row failed; the others continue
    ├── InputError            an image or a video that the row names
    ├── RenderError
    └── OutOfMemory

A row's value that cannot be rendered is not an error but a `Refused`; sandboxes return it too.

Also text for people and shells: text of others made safe, and counts and sizes as people write them.
"""

from __future__ import annotations

import errno
import json
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

SHAPE_ORDER = "frames x height x width"

# C0 and C1 controls except newline and tab, changes of text direction, line separators, the invisible byte
# order mark, and surrogates, which no encoding has.
CONTROL = "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
CONTROLS = re.compile(CONTROL)
_FACTORS = {
    "": 1,
    **{unit: 1000**power for power, unit in enumerate(("b", "kb", "mb", "gb", "tb", "pb"))},
    **{unit: 1024**power for power, unit in enumerate(("kib", "mib", "gib", "tib", "pib"), start=1)},
}
_MAX_TEXT = 20_000  # characters of an error's message or traceback; ten times a long one
_SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,6})?)\s*([a-z]*)")


def shape_text(num_frames: int | None, height: int | None, width: int | None) -> str:
    """Return 9 frames of 64 by 96 pixels as "9 x 64 x 96", an image as "64 x 96", and nothing as ""."""
    if height is not None and width is not None:
        return " x ".join(str(number) for number in (num_frames, height, width) if number is not None)
    frames = "frame" if num_frames == 1 else "frames"
    counts = {frames: num_frames, "pixels high": height, "pixels wide": width}
    return ", ".join(f"{number} {name}" for name, number in counts.items() if number is not None)


def escaped(text: str) -> str:
    r"""Return text with its control characters spelled out, e.g. `\x1b`."""
    return CONTROLS.sub(lambda match: spelt(match[0]), text)


def shortened(text: str) -> str:
    """Return text that can be shown, sent and written: surrogates spelled out, cut in the middle if long."""
    text, half = text.encode("utf-8", "backslashreplace").decode(), _MAX_TEXT // 2
    return text if len(text) <= _MAX_TEXT else f"{text[:half]} ... {text[-half:]}"


def spelt(character: str) -> str:
    number = ord(character)
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"


def quoted(*words: object) -> str:
    """Return words of a command, quoted for a shell where necessary."""
    return shlex.join(map(str, words))


def command(*arguments: object) -> str:
    """Return the command of framefleet with these arguments, quoted."""
    return quoted("framefleet", *arguments)


def setting(key: str, value: object) -> str:
    """Return the option that sets a key of the job to a value, quoted."""
    return quoted("--set", f"{key}={value if isinstance(value, str) else json.dumps(value, default=str)}")


def count_text(num: float, noun: str) -> str:
    """Return e.g. "1 row" or "1,234 rows"."""
    num = round(num, 3)  # Ray's sums are not exact
    return f"{num:,.15g} {noun}{'' if num == 1 else 's'}"


def names_text(names: Sequence[str]) -> str:
    """Return the first twenty names in quotes, and how many more there are."""
    more = f" and {len(names) - 20:,} more" if len(names) > 20 else ""
    return ", ".join(map(repr, names[:20])) + more


def read_bytes(size: str | int) -> int:
    """Return the number of bytes in "24GB", "1.5 TiB" or 1000. Raises ValueError if it is not a size."""
    match = _SIZE.fullmatch(str(size).strip().lower())
    number = float(match[1]) * _FACTORS.get(match[2], 0) if match else 0
    if number < 1:
        raise ValueError("a size, such as 24GB or 500MiB")
    return int(number)


def bytes_text(num_bytes: float) -> str:
    """Return 1,234,567 as "1.2 MB"."""
    for unit in ("bytes", "KB", "MB", "GB"):
        if num_bytes < 1000:
            return count_text(round(num_bytes), "byte") if unit == "bytes" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:,.1f} TB"


def rounded(number: float, digits: int = 3) -> str:
    """Return a number with its first digits, e.g. "0.00123" or "1,234"."""
    return f"{number:,.0f}" if abs(number) >= 10 ** (digits - 1) else f"{number:,.{digits}g}"


# unreachable: it does not answer, or is busy. refused: credentials, permissions, a read-only folder. missing:
# the bucket, or a folder that existed. invalid: an impossible endpoint, bucket or region.
StoreTrouble = Literal["unreachable", "refused", "full", "missing", "invalid", "other"]
PUT_BACK = "put it back as it was, or choose another output"
FULL_ERRNOS = {errno.ENOSPC, errno.EDQUOT}
REFUSED_ERRNOS = {errno.EACCES, errno.EPERM, errno.EROFS}
# A folder, a pipe, a device or a loop of links in place of a file or of a folder above it; or a name that no
# file can have.
NO_FILE_ERRNOS = {errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG}
# What a machine runs out of; the same command may succeed later, or elsewhere.
SCARCE = FULL_ERRNOS | {errno.EMFILE, errno.ENFILE, errno.ENOMEM}


class FramefleetError(Exception):
    """Every error that framefleet raises on purpose.

    problem, fix: escaped, because they quote text of others; positional, because keyword-only arguments do
    not survive Ray's pickling.
    """

    exit_code = 1

    def __init__(self, problem: str, fix: str = "") -> None:
        super().__init__(problem, fix)
        self.problem = escaped(problem)
        self.fix = escaped(fix)

    def __str__(self) -> str:
        return f"{self.problem}\nhint: {self.fix}" if self.fix else self.problem


class FarEnough(BaseException):
    """Ends a pipeline's call once it came as far as we want. Not an Exception: a recipe might catch it."""


def message_of(error: BaseException) -> str:
    """Return the message of any error, even if its `__str__` raises, as a user's own class may."""
    try:
        return str(error)
    except Exception as failure:  # whatever its `__str__` raises
        return f"it has no message: its __str__ raised {type(failure).__name__}"


class UserError(FramefleetError):
    """The job, the table or the model must change."""

    exit_code = 2


class JobError(UserError):
    """The job file or a `--set` value cannot be used."""


class OutputInUse(JobError):
    """Another run renders into the output. It reports its end; this run reports nothing."""


class TableError(UserError):
    """The table cannot be read, or rows of it cannot be rendered."""


class ModelError(UserError):
    """The model cannot be loaded, or may not be."""


class RecipeError(UserError):
    """The recipe cannot be found or called."""


class PluginError(UserError):
    """An installed plugin cannot be used."""


class ServiceError(FramefleetError):
    """The world around the job failed: run it again."""

    exit_code = 3


class StoreError(ServiceError):
    """The output could not be read or written.

    kind: what is wrong with the store. may_pass: whether the same request may succeed later.
    """

    kind: StoreTrouble = "other"

    @property
    def may_pass(self) -> bool:
        return self.kind == "unreachable"


class StoreConflict(StoreError):
    """Other bytes are already stored under that name."""


class NoFile(StoreError):
    """Something else is in a file's place, e.g. a folder, and must be removed by hand."""

    exit_code = 2


class AuthorityError(ServiceError):
    """The time stamp authority does not answer, or refuses."""


class EndpointError(ServiceError):
    """A service that renders, judges or writes text does not answer, or refuses every request."""


class FleetError(ServiceError):
    """Workers could not be started, or none is left."""


class BrokenWorker(ServiceError):
    """This process cannot render any more rows; one that replaces it can."""


def exit_code_of(error: BaseException) -> int | None:
    """Return the exit code of `framefleet` for an error; None for a bug."""
    if isinstance(error, FramefleetError):
        return error.exit_code
    number = error.errno if isinstance(error, OSError) else None
    if isinstance(error, MemoryError) or number in SCARCE:
        return ServiceError.exit_code
    # A path that the user named cannot be opened, and nothing raised a better error.
    return UserError.exit_code if number in NO_FILE_ERRNOS | REFUSED_ERRNOS else None


class RowError(FramefleetError):
    """One row failed; the others continue."""


class InputError(RowError):
    """An image or a video that a row names cannot be used.

    The problem is a clause about "it", as in `Refused`; `rows/inputs/access.py:naming` adds the column and
    the cell in front.
    """


class RenderError(RowError):
    """The recipe returned something that is not frames."""


class OutOfMemory(RowError):
    """A single row does not fit on the device."""


_MAX_SHOWN, _BITS = 80, 256  # characters of a value in a message; 78 digits


def not_ours(where: str, reason: str, fix: str = PUT_BACK) -> JobError:
    """Return the error for an output's file that is damaged or comes from another program."""
    return JobError(f"{where} is not as framefleet wrote it: {reason}", fix)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """Why a value cannot be rendered, e.g. the end of "height is 100, but ...", and what to do."""

    reason: str
    fix: str


@dataclass(frozen=True, slots=True)
class Problem:
    """A row's value that is refused. column: the table's, or `defaults.` and the argument."""

    column: str
    value: Any
    why: Refused

    def __str__(self) -> str:
        value = f"is {shown(self.value)}" if self.value is not None else "is empty"
        return f"{self.column} {value}, but {self.why.reason}"


def shown(value: Any) -> str:
    """Return a value for a message, shortened: cells can be long, and Python does not print huge numbers."""
    if isinstance(value, int) and value.bit_length() > _BITS:
        return f"a whole number of {count_text(value.bit_length(), 'bit')}"
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN else text[:_MAX_SHOWN] + "..."
