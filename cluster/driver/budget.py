"""What a job may spend, and what it has spent: hours, money, bytes. Plain values; no clock, no store."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from framefleet.pipeline.guards.strict_model import Strict
from framefleet.pipeline.text import bytes_text, read_bytes

HOUR_S = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What a job has spent. elapsed_s: while a driver ran. worker_s: of all workers. num_bytes: of clips."""

    elapsed_s: float = 0.0
    worker_s: float = 0.0
    num_bytes: int = 0

    def __add__(self, other: Spent) -> Spent:
        return Spent(**{one.name: getattr(self, one.name) + getattr(other, one.name) for one in fields(self)})

    def text(self) -> str:
        """Return the sums in words: "1.50 hours, 3.00 hours of workers, 1.2 GB of clips"."""
        hours = f"{self.elapsed_s / HOUR_S:.2f} hours, {self.worker_s / HOUR_S:.2f} hours of workers"
        return f"{hours}, {bytes_text(self.num_bytes)} of clips"


class JobBudget(Strict):
    """What all runs of a job may spend. At a limit, the job stops as after Ctrl-C; raise it to continue."""

    hours: float | None = Field(default=None, gt=0, description="Maximum hours, over all runs.")
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

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.money is not None and self.price is None:
            raise ValueError("given with a price, which is that of one GPU for one hour")
        return self

    @property
    def is_limited(self) -> bool:
        return self != JobBudget()

    def cost(self, spent: Spent, *, gpus_per_worker: float) -> float | None:
        """Return the money spent; None without a price. gpus_per_worker: 1 where workers have none."""
        return None if self.price is None else spent.worker_s / HOUR_S * gpus_per_worker * self.price

    def reached(self, spent: Spent, *, gpus_per_worker: float) -> Literal["hours", "money", "bytes"] | None:
        """Return the first limit that is reached, or None."""
        cost = self.cost(spent, gpus_per_worker=gpus_per_worker)
        if self.hours is not None and spent.elapsed_s >= self.hours * HOUR_S:
            return "hours"
        if self.money is not None and cost is not None and cost >= self.money:
            return "money"
        return "bytes" if self.bytes is not None and spent.num_bytes >= self.bytes else None

    def overrun(self, spent: Spent, *, gpus_per_worker: float) -> str | None:
        """Return the message about the limit that is reached, or None."""
        limit = self.reached(spent, gpus_per_worker=gpus_per_worker)
        if limit is None:
            return None
        cost = self.cost(spent, gpus_per_worker=gpus_per_worker)
        allowed = bytes_text(self.bytes or 0) if limit == "bytes" else f"{getattr(self, limit):g}"
        money = "" if cost is None else f", {cost:.2f} of money"
        return f"budget.{limit} is reached ({allowed}): {spent.text()}{money}"
