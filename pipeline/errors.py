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
│   ├── EndpointError         a service that judges or writes does not answer
│   ├── FleetError
│   └── BrokenWorker          its process can render no more, another one can
└── RowError              one row failed; the others continue
    ├── InputError            an image or a video that the row names
    ├── RenderError
    └── OutOfMemory

A value of a row that cannot be rendered is no error but a `Refused`; sandboxes say it too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from framefleet.pipeline.text import escaped

# unreachable: it does not answer, or is busy. refused: credentials, rights, a read-only folder. missing: the
# bucket, or the folder that was there. invalid: no such endpoint, bucket or region can be.
StoreTrouble = Literal["unreachable", "refused", "full", "missing", "invalid", "other"]
PUT_BACK = "put it back as it was, or choose another output"


class FramefleetError(Exception):
    """A problem and its fix, escaped, as they quote what others wrote.

    Both positional: keyword-only arguments do not survive Ray's pickling.
    """

    exit_code = 1

    def __init__(self, problem: str, fix: str = "") -> None:
        super().__init__(problem, fix)
        self.problem = escaped(problem)
        self.fix = escaped(fix)

    def __str__(self) -> str:
        return f"{self.problem}\nhint: {self.fix}" if self.fix else self.problem


class FarEnough(BaseException):
    """Ends a call of a pipeline that came as far as we want. No Exception, which a recipe might catch."""


def message_of(error: BaseException) -> str:
    """Return the message of any error; one of a user's own class may fail to say it."""
    try:
        return str(error)
    except Exception as failure:  # whatever its `__str__` raises
        return f"it has no message: its __str__ raised {type(failure).__name__}"


class UserError(FramefleetError):
    exit_code = 2


class JobError(UserError):
    """The job file or a `--set` value cannot be used."""


class OutputInUse(JobError):
    """Another run renders into the output, and reports its end: this one does not."""


class TableError(UserError):
    """The table cannot be read, or rows of it cannot be rendered."""


class ModelError(UserError):
    """The model folder is not one that may be loaded."""


class RecipeError(UserError):
    """The recipe cannot be found or called."""


class PluginError(UserError):
    """An installed plugin cannot be used."""


class ServiceError(FramefleetError):
    exit_code = 3


class StoreError(ServiceError):
    """The output could not be read or written.

    kind: what is wrong with it. may_pass: whether the same request may succeed later.
    """

    kind: StoreTrouble = "other"

    @property
    def may_pass(self) -> bool:
        return self.kind == "unreachable"


class StoreConflict(StoreError):
    """Other bytes are already stored under that name."""


class NoFile(StoreError):
    """Something else stands in a file's place: whoever put it there must take it away."""

    exit_code = 2


class AuthorityError(ServiceError):
    """The authority that gives time stamps does not answer, or gives none."""


class EndpointError(ServiceError):
    """A service that judges clips or writes text does not answer, or refuses every request."""


class FleetError(ServiceError):
    """Workers could not be started, or none is left."""


class BrokenWorker(ServiceError):
    """This process can render no more rows; one that takes its place can."""


class RowError(FramefleetError):
    """One row failed; the others continue."""


class InputError(RowError):
    """An image or a video that a row names cannot be used.

    The problem is a clause about "it", as in `Refused`: who knows the column and the cell puts them before,
    see `rows/inputs/access.py:naming`.
    """


class RenderError(RowError):
    """The recipe returned something that is not frames."""


class OutOfMemory(RowError):
    """One row alone does not fit the device."""


_MAX_SHOWN, _BITS = 80, 256  # characters of a value in a message; 78 digits


def not_ours(where: str, reason: str, fix: str = PUT_BACK) -> JobError:
    """Return that a file of an output, which may be anybody's, is damaged or of another program."""
    return JobError(f"{where} is not as framefleet wrote it: {reason}", fix)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """Why a value cannot be rendered, as the end of "height is 100, but ...", and what to do."""

    reason: str
    fix: str


@dataclass(frozen=True, slots=True)
class Problem:
    """One value of a row that is refused. column: as the table names it, or `defaults.` and the argument."""

    column: str
    value: Any
    why: Refused

    def __str__(self) -> str:
        value = f"is {shown(self.value)}" if self.value is not None else "is empty"
        return f"{self.column} {value}, but {self.why.reason}"


def shown(value: Any) -> str:
    """Return a value as messages show it: cells may be pages, and Python spells no numbers of pages."""
    if isinstance(value, int) and value.bit_length() > _BITS:
        return f"a whole number of {value.bit_length():,} bits"
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN else text[:_MAX_SHOWN] + "..."
