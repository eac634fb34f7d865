"""What ends a run early: signals, which wait until work can be left, and what a job may spend.

Signals are for drivers and workers. A budget of hours, money and bytes is a plain value.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from types import FrameType
from typing import Annotated, Literal, Self, get_args

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from framefleet.pipeline.errors import bytes_text, read_bytes
from framefleet.pipeline.guards.strict_model import MustBe, Strict

# Ctrl-C; what machines and schedulers send; a terminal that closed. Windows lacks the last.
SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class Stop:
    """A context: the first signal sets `is_asked`, Ctrl-C again sets `is_urgent`, a third is not put off.

    The first signal is delivered when the context ends, unless an error ends it. Only Ctrl-C makes it urgent:
    other signals may be sent twice, e.g. by the kernel and a shell when a terminal closes. Signals that this
    process ignores (SIGHUP under nohup) or leaves to the system are left alone, and so are all in threads.
    """

    def __init__(self) -> None:
        self._asked: list[int] = []
        self._handlers: dict[int, Callable[[int, FrameType | None], object]] = {}
        # The number of each signal arrives here: two that come while Ray waits call a handler only once.
        self._numbers: tuple[socket.socket, socket.socket] | None = None
        self._former_fd = -1

    @property
    def can_be_urgent(self) -> bool:
        """Whether Ctrl-C reaches this process: a shell's background jobs ignore it."""
        return signal.SIGINT in self._handlers

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            handlers = {number: signal.getsignal(number) for number in SIGNALS}
            self._handlers = {number: handler for number, handler in handlers.items() if callable(handler)}
            self._numbers = socket.socketpair()
            for end in self._numbers:
                end.setblocking(False)
            self._former_fd = signal.set_wakeup_fd(self._numbers[1].fileno(), warn_on_full_buffer=False)
        for number in self._handlers:
            signal.signal(number, self._note)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            for number, handler in self._handlers.items():
                signal.signal(number, handler)  # from here, one that comes may raise
            self._so_far()
        finally:
            for number, handler in self._handlers.items():  # also where one has raised
                signal.signal(number, handler)
            if self._numbers:
                signal.set_wakeup_fd(self._former_fd)
                for end in self._numbers:
                    end.close()
                self._numbers = None
        if kind is None:
            self.check()

    @property
    def is_asked(self) -> bool:
        return bool(self._so_far())

    @property
    def is_urgent(self) -> bool:
        return len(self._so_far()) > 1

    def ask(self) -> None:
        """Do what the first Ctrl-C does."""
        if not self._so_far():
            self._asked.append(signal.SIGINT)

    def check(self) -> None:
        """Deliver a signal that was put off, which usually raises KeyboardInterrupt."""
        if request := self._so_far():
            if request[0] not in self._handlers:  # in a thread, where no signal comes
                raise KeyboardInterrupt
            self._handlers[request[0]](request[0], None)

    def _so_far(self) -> list[int]:
        """Return the signals so far that count."""
        with contextlib.suppress(BlockingIOError):
            for number in self._numbers[0].recv(4096) if self._numbers else b"":
                if number in self._handlers and (not self._asked or number == signal.SIGINT):
                    self._asked.append(number)
        return self._asked

    def _note(self, number: int, frame: FrameType | None) -> None:
        if len(self._so_far()) > 2:
            self._handlers[number](number, frame)


HOUR_S = 3600.0

BudgetLimit = Literal["hours", "money", "bytes"]
AGAIN = "run the same command again"


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What a job has spent. elapsed_s: of drivers. worker_s: of all workers. num_bytes: of clips."""

    elapsed_s: float = 0.0
    worker_s: float = 0.0
    num_bytes: int = 0

    def __add__(self, other: Spent) -> Spent:
        names = [field.name for field in fields(self)]
        return Spent(**{name: getattr(self, name) + getattr(other, name) for name in names})

    def scaled(self, factor: float) -> Spent:
        return Spent(
            elapsed_s=self.elapsed_s * factor,
            worker_s=self.worker_s * factor,
            num_bytes=round(self.num_bytes * factor),
        )

    def text(self) -> str:
        """Return the sums in words: "1.50 hours, 3.00 worker hours, 1.2 GB of clips"."""
        hours = f"{self.elapsed_s / HOUR_S:.2f} hours, {self.worker_s / HOUR_S:.2f} worker hours"
        return f"{hours}, {bytes_text(self.num_bytes)} of clips"


@dataclass(frozen=True, slots=True, kw_only=True)
class Overrun:
    """A limit that ended a run: what was used of it, and how to continue."""

    message: str
    to_continue: str


class JobBudget(Strict):
    """What a job may spend. At a limit, it stops as after Ctrl-C; raise the limit to continue."""

    per: Literal["job", "run"] = Field(
        default="job",
        description="job: limits of all runs together. run: limits of each run, e.g. each night.",
    )
    hours: float | None = Field(default=None, gt=0, description="Maximum hours.")
    money: float | None = Field(
        default=None, gt=0, description="Maximum cost, in any currency: `price` for each hour of each GPU."
    )
    price: float | None = Field(
        default=None,
        gt=0,
        description="Price per hour of a GPU (of a worker, if workers have no GPU); needed with `money`.",
    )
    bytes: Annotated[int, BeforeValidator(read_bytes, json_schema_input_type=str | int)] | None = Field(
        default=None, description="Maximum size of all clips, e.g. 500GB; clips in progress are still stored."
    )
    stop_at: (
        Annotated[str, Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d$"), MustBe('a time such as "07:00"')] | None
    ) = Field(
        default=None,
        description='Time of day at which a run stops, e.g. "07:00", by the clock of the machine it runs on.',
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.money is not None and self.price is None:
            raise ValueError("given with a price, which is that of one GPU for one hour")
        if self.per == "run" and not (self.limits() or self.stop_at):
            raise PydanticCustomError("limit", "given with a limit: hours, money, bytes or stop_at")
        return self

    @property
    def is_limited(self) -> bool:
        return self != JobBudget()

    def deadline(self, began: datetime) -> datetime | None:
        """Return when a run that began then has to stop: at the next `stop_at`. None without one."""
        if self.stop_at is None:
            return None
        at = datetime.fromisoformat(f"{began.date()}T{self.stop_at}").replace(tzinfo=began.tzinfo)
        at = at if at > began else at + timedelta(days=1)
        if began.utcoffset() == began.astimezone().utcoffset():  # the clock may change by then
            at = at.replace(tzinfo=None).astimezone()
        return at

    def cost(self, spent: Spent, gpus: float) -> float | None:
        """Return the money spent; None without a price. gpus: per worker; 1 on CPUs."""
        return None if self.price is None else spent.worker_s / HOUR_S * gpus * self.price

    def limits(self) -> dict[BudgetLimit, float]:
        return {limit: most for limit in get_args(BudgetLimit) if (most := getattr(self, limit)) is not None}

    def used(self, spent: Spent, gpus: float) -> dict[BudgetLimit, float]:
        """Return what was spent of each thing that may be limited, in its limit's unit."""
        money = self.cost(spent, gpus) or 0.0
        return {"hours": spent.elapsed_s / HOUR_S, "money": money, "bytes": spent.num_bytes}

    def reached(self, spent: Spent, gpus: float) -> BudgetLimit | None:
        used = self.used(spent, gpus)
        return next((limit for limit, most in self.limits().items() if used[limit] >= most), None)

    def overrun(self, limit: BudgetLimit, spent: Spent, gpus: float, needed: Spent | None = None) -> Overrun:
        """Return the messages about a limit that is reached. needed: for all rows, at the present rate."""
        used, cost = self.used(spent, gpus)[limit], self.cost(spent, gpus)
        every = spent.text() + ("" if cost is None else f", {cost:.2f} of money")
        whose = "this run" if self.per == "run" else "all runs"
        message = (
            f"budget.{limit} is reached: {whose} used {amount_text(limit, used)}, "
            f"{amount_text(limit, self.limits()[limit])} is allowed ({every})"
        )
        if self.per == "run":
            return Overrun(message=message, to_continue=AGAIN)
        to_continue = f"raise budget.{limit} above {amount_text(limit, used)} and {AGAIN}"
        if needed is not None:
            to_continue += f"; all rows need about {amount_text(limit, self.used(needed, gpus)[limit])}"
        return Overrun(message=message, to_continue=to_continue)

    def num_rows_left(self, spent: Spent, per_row: Spent, gpus: float) -> int | None:
        """Return how many more rows the limits allow, at this rate; None if that is not known."""
        used, each = self.used(spent, gpus), self.used(per_row, gpus)
        limits = self.limits().items()
        num_rows = [(most - used[limit]) / each[limit] for limit, most in limits if each[limit]]
        return max(0, int(min(num_rows))) if num_rows else None


def amount_text(limit: BudgetLimit, amount: float) -> str:
    if limit == "bytes":
        return bytes_text(amount)
    text = f"{amount:,.2f}" if amount >= 1 else f"{amount:.4g}"
    return f"{text} hours" if limit == "hours" else text
