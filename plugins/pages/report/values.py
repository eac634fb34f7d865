"""The values of a report."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from framefleet.api.commands import Overview
from framefleet.api.errors import count_text, rounded
from framefleet.api.outputs import FailedRow
from framefleet.cluster.driver.progress import AuditFigures
from framefleet.plugins.pages.report.figures import Bin, WorkerTime


@dataclass(frozen=True, slots=True, kw_only=True)
class Yield:
    """How the workers' time was used."""

    accepted: str | None  # the condition
    num_clips: int
    num_accepted: int
    seconds: Mapping[str, float]  # by what became of them; they add up to the whole
    networks_share: float  # of all time, that of the model's networks
    cost_per_accepted: float | None  # None without a price

    @property
    def accepted_share(self) -> float:
        """Share of the workers' time that became accepted clips."""
        return self.seconds["accepted clips"] / sum(self.seconds.values())

    def text(self) -> str:
        """Return it as text: "of the workers' time, networks computed for 94%; 31% made ..."."""
        clips = f"{self.num_accepted:,} of {count_text(self.num_clips, 'clip')}"
        cost = "" if self.cost_per_accepted is None else f"; {rounded(self.cost_per_accepted, 4)} for each"
        whole = sum(self.seconds.values())
        rest = [
            f"{name} {part / whole:.0%}" for name, part in self.seconds.items() if name != "accepted clips"
        ]
        networks = f"of the workers' time, networks computed for {self.networks_share:.0%}"
        made = f"{self.accepted_share:.0%} made accepted clips ({clips}{cost})"
        return f"{networks}; {', '.join([made, *rest])}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RowsByState:
    """Rows by state."""

    total: int | None  # done + failed + left; None, as `left`, where nobody wrote down the table's rows
    done: int
    failed: int
    invalid: int
    left: int | None
    former: int = 0  # with a record, but no longer in the table


@dataclass(frozen=True, slots=True, kw_only=True)
class Clips:
    """What was rendered. batch_sizes: rows by the mean size of their forwards. shapes: rows by theirs."""

    num_bytes: int
    seconds: float
    mean_batch: float | None
    batch_sizes: Mapping[int, int]
    shapes: Mapping[str, int]
    peak_memory_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Throughput:
    """When it was rendered: the start of the first row, the end of the last, rows by time."""

    started: datetime | None
    finished: datetime | None
    bin_s: int
    bins: tuple[Bin, ...]

    @property
    def wall_s(self) -> float:
        return (self.finished - self.started).total_seconds() if self.started and self.finished else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelTime:
    """Seconds of the workers' models, from their first row on."""

    busy_s: float  # computing
    idle_s: float
    idle: Mapping[str, float]  # by cause, the most first
    num_workers: int
    workers: tuple[WorkerTime, ...]  # the busiest

    @property
    def idle_share(self) -> float | None:
        """Share of that time in which the models were idle."""
        whole = self.busy_s + self.idle_s
        return self.idle_s / whole if whole else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Cost of the job, including inner outputs. gpu_hours: of the report and of inner outputs.

    paid: to servers, by the `price` of the job's engine; part of `total`.
    """

    price_per_gpu_hour: float
    gpu_hours: float
    inner_gpu_hours: Mapping[str, float]  # of these, by the inner output's name
    paid: float
    total: float
    per_clip: float | None

    @property
    def inner_text(self) -> str:
        """The part of `gpu_hours` that inner outputs took, e.g. ", of which drafts 0.0522"; or ""."""
        each = ", ".join(f"{name} {rounded(hours)}" for name, hours in self.inner_gpu_hours.items())
        return f", of which {each}" if each else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class UsedEnvironment:
    """Where rows were rendered: what their records say of machines and libraries."""

    rows: int
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class UsedModel:
    """name: in the job's `models`; "" of a job's only one. busy_s: that it computed, where records say so."""

    rows: int
    model: str
    digest: str
    license: str
    name: str = ""
    busy_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditedRows:
    """What audits say of rows done."""

    said: AuditFigures | None  # what drivers reported; None: nothing
    wrong_share: float | None  # of all rows at the most, with 95 % confidence
    by_remark: Mapping[str, int]  # rows by what their records say; see `render/audit/verdict.py`


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedAlike:
    """Rows that failed with one message; row: the last of them."""

    rows: int
    row: FailedRow


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Report(Overview):
    """The report of an output."""

    framefleet: str
    made_at: datetime
    output: str
    rows: RowsByState
    clips: Clips
    throughput: Throughput
    work: ModelTime
    audits: AuditedRows
    spent: Mapping[str, float]  # what all runs counted, as figures of `Summary`
    gpus_per_worker: float
    gpu_idle: Mapping[str, float]  # of workers with several GPUs: idle share, by the networks on each
    gpu_hours: float  # worker hours, times the GPUs of each; of a worker without a GPU its own hours
    cost: Cost | None  # None without any price
    clip_yield: Yield | None  # None if drivers counted nothing
    failures_by_type: Mapping[str, int]
    failures: tuple[FailedAlike, ...]  # by message, the most frequent first
    environments: tuple[UsedEnvironment, ...]
    models: tuple[UsedModel, ...]
    notes: tuple[str, ...] = ()  # of plugins

    @property
    def unit(self) -> str:
        """Of `gpu_hours`."""
        return "GPU hours" if self.gpus_per_worker else "worker hours"

    @property
    def all_gpu_hours(self) -> float:
        """All that the cost is for; without a cost, `gpu_hours`."""
        return self.cost.gpu_hours if self.cost else self.gpu_hours

    def overview(self) -> Mapping[str, object]:
        rows, cost = self.rows, self.cost
        of = "" if rows.total is None else f" of {rows.total:,}"
        return {
            "output": self.output,
            "rows": f"{rows.done:,}{of} done, {rows.failed:,} failed, {rows.invalid:,} invalid",
            "time": f"{rounded(self.all_gpu_hours, 4)} {self.unit}{cost.inner_text if cost else ''}",
            "mean batch": None if self.clips.mean_batch is None else f"{self.clips.mean_batch:.1f}",
            "cost": None if cost is None else rounded(cost.total, 4),
            "paid to servers": f"{cost.paid:,.2f}" if cost and cost.paid else None,
            "yield": self.clip_yield.text() if self.clip_yield else None,
        }

    def to_json(self, *, is_ascii: bool = False) -> str:
        """is_ascii: for a terminal, which does not get others' control characters then."""
        values = asdict(self)
        values["work"]["idle_share"] = self.work.idle_share
        if self.clip_yield:
            values["clip_yield"]["accepted_share"] = self.clip_yield.accepted_share
        return json.dumps(values, indent=2, ensure_ascii=is_ascii, default=datetime.isoformat) + "\n"
