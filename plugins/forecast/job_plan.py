"""The values that `framefleet plan` prints: what rendering a job would do and take."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Protocol, Self

from framefleet.api.commands import Overview
from framefleet.api.errors import count_text
from framefleet.pipeline.outputs.gone_clips import Gone
from framefleet.pipeline.rows.tables.index import RowCounts

if TYPE_CHECKING:
    from framefleet.api.commands import Watch
    from framefleet.api.jobs import Job
    from framefleet.pipeline.rows.inputs.fit import Fitted
    from framefleet.plugins.forecast.cut_prompts import CutPrompt
    from framefleet.plugins.forecast.prediction import Prediction
    from framefleet.plugins.memory.memory import Memory

FRAMEFLEET = "framefleet"  # origin of values that neither job nor model sets


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanOptions:
    """Options of `plan`. gpu_memory: in bytes."""

    hollow: bool = False
    probe: bool = False
    gpu_memory: int | None = None
    limit: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Probed:
    """The result of calling a pipeline with one row of each shape."""

    refused: tuple[tuple[str, str], ...]  # (problem, fix) for each shape that fails
    unknown: tuple[str, ...]  # reasons why others cannot be called


@dataclass(frozen=True, slots=True, kw_only=True)
class Argument:
    """One argument."""

    name: str
    value: Any  # default for rows
    origin: str  # where the default comes from; "" if there is none
    column: str | None  # column that sets it, if any


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditPlan:
    """The expected audits if no row is a plain call. Plain calls need no audit, so there may be fewer."""

    num_audits: float  # on average
    share: float  # of the rows to render
    most_wrong: int  # maximum number of wrong rows if no audit fails, with 95 % confidence
    limit: float | None = None  # share of the models' time that audits may take; None: no limit
    is_limited: bool = False  # whether there would be more without the limit


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPlan:
    """The plan for the rows of one model."""

    model: str
    license: str  # with its unusual terms
    pipeline: str
    code: str | None  # package with the pipeline, if it is neither diffusers nor framefleet
    preset: str | None
    options: Mapping[str, Any]  # set by the job
    arguments: tuple[Argument, ...]  # all, with their origins
    unusual: tuple[str, ...]  # lines on values far from the model's defaults
    num_cut: int  # rows with prompts that are longer than the model reads
    first_cut: CutPrompt | None
    memory: Memory | None  # for the largest row; None for an engine
    hollow: Probed | None = None  # None if the pipeline was not called


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class JobPlan(Overview, ModelPlan):
    """What rendering a job would do. With several models, the fields of a single one describe the first."""

    table: str
    sweep: str | None  # size of the sweep, if there is one
    output: str
    marks: tuple[str, ...]  # marks of each clip
    num_rows: int  # of the table
    num_invalid: int  # rows that cannot be rendered
    invalid: tuple[str, ...]  # reasons, for the first of them
    counts: RowCounts
    carried: Mapping[str, str]  # columns that framefleet does not use, with their names in records
    lookalikes: tuple[tuple[str, str], ...]  # (column, argument) for carried columns named like an argument
    shapes: Mapping[str, int]  # number of valid rows by shape, the most frequent first
    fitted: Mapping[str, Fitted]  # how `inputs.fit` changes input pictures
    # Number of rows to render by lane: rows of one model, and of built-in recipes or one of the user's.
    lanes: Mapping[str, int] = field(default_factory=dict)
    models: Mapping[str, ModelPlan] = field(default_factory=dict)  # by name, if there are several
    prediction: Prediction | None = None  # with --probe
    audits: AuditPlan | None = None  # None: no audits, or the rows are not known yet
    gone: Gone | None = None  # recorded clips that are missing
    charge: float = 0.0  # of servers for the rows to render, by the engine's price
    limit: int | None = None  # number of rows read from the start of the table; None: all
    before: tuple[str, ...] = ()  # lines on what runs before

    @property
    def to_render(self) -> int | str:
        """The number of rows to render; text if it is not known exactly."""
        return self.counts.pending

    @classmethod
    def of(cls, plan: JobPlan, **values: Any) -> Self:
        """Return a copy of another plan with these values."""
        return cls(**{one.name: getattr(plan, one.name) for one in fields(plan)} | values)

    def overview(self) -> Mapping[str, object]:
        counts, memory = self.counts, self.memory
        shapes = [f"{count:,} of {shape}" for shape, count in self.shapes.items()]
        notes = [
            *self.invalid[:1],
            *(f"{one!r} is not read; did you mean {of}?" for one, of in self.lookalikes),
        ]
        return {
            "rows": f"{self.num_rows:,}: {self.num_invalid:,} invalid, "
            + f"{count_text(counts.duplicates, 'duplicate')}, "
            + "; ".join([f"{counts.done:,} done", *notes]),
            "to render": self.to_render,
            "sizes": "; ".join([*shapes[:3], *[f"{len(shapes) - 3:,} more"] * bool(shapes[3:])]) or None,
            "model": f"{self.model} ({self.pipeline})",
            "memory": memory.summary if memory else None,
            "cost": f"about {self.charge:,.2f}" if self.charge else None,
            "audits": f"about {count_text(round(self.audits.num_audits), 'row')}" if self.audits else None,
            "output": self.output,
        }

    def parts(self, wanted: PlanOptions) -> Iterator[str | JobPlan]:
        """Yield what to print: lines, plans of runs that come first, and this plan."""
        yield self


class PlanRun(Protocol):
    def __call__(
        self, job: Job, watch: Watch, wanted: PlanOptions, *, table: str | None = None
    ) -> JobPlan: ...
