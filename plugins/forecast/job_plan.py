"""What `framefleet plan` prints: what rendering a job would do, and would take."""

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

FRAMEFLEET = "framefleet"  # the origin of what neither job nor model says


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanOptions:
    """What else is to be found out; see `plan`. gpu_memory: in bytes."""

    hollow: bool = False
    probe: bool = False
    gpu_memory: int | None = None
    limit: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Probed:
    """What a pipeline says to one row of each shape."""

    refused: tuple[tuple[str, str], ...]  # (problem, fix) of shapes that fail
    unknown: tuple[str, ...]  # why others cannot be called


@dataclass(frozen=True, slots=True, kw_only=True)
class Argument:
    """One argument."""

    name: str
    value: Any  # of rows that give none
    origin: str  # who says so; "" of one that only rows give
    column: str | None  # where rows give it; None: they do not


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditPlan:
    """What is expected if no row is a plain call; there is less of it to do the more are."""

    num_audits: float  # on average
    share: float  # of the rows that are to be rendered
    most_wrong: int  # of these rows, with 95 % confidence, if no audit finds one
    limit: float | None = None  # the share of the models' time that audits may take; None: no limit
    is_limited: bool = False  # there would be more without it


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPlan:
    """What a model's rows come down to."""

    model: str
    license: str  # with what is unusual in it
    pipeline: str
    code: str | None  # the package that holds the pipeline, if neither diffusers nor framefleet
    preset: str | None
    options: Mapping[str, Any]  # that the job sets
    arguments: tuple[Argument, ...]  # all, and who says each
    unusual: tuple[str, ...]  # what is far from the model's own sizes
    num_cut: int  # rows with prompts whose end the model does not read
    first_cut: CutPrompt | None
    memory: Memory | None  # of the largest row; None for an engine
    hollow: Probed | None = None  # what the pipeline says to one row of each shape; None: not called


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class JobPlan(Overview, ModelPlan):
    """What rendering a job would do. With several models, values of one model are those of the first."""

    table: str
    sweep: str | None  # where rows come from, counted, if they do
    output: str
    marks: tuple[str, ...]  # what each clip carries
    num_rows: int  # of the table
    num_invalid: int  # of these, those that cannot be rendered
    invalid: tuple[str, ...]  # why, of the first of them
    counts: RowCounts
    carried: Mapping[str, str]  # columns without a meaning, each with its name in records
    lookalikes: tuple[tuple[str, str], ...]  # those of them that are named like an argument, each with that
    shapes: Mapping[str, int]  # valid rows by shape, the most frequent first
    fitted: Mapping[str, Fitted]  # what is done to the pictures that rows start from, by `inputs.fit`
    # Rows to render, by those that share a process: of a model, and of our recipes or one of the user's.
    lanes: Mapping[str, int] = field(default_factory=dict)
    models: Mapping[str, ModelPlan] = field(default_factory=dict)  # each by name, where there are several
    prediction: Prediction | None = None  # None: not asked for
    audits: AuditPlan | None = None  # None: there are none, or it is not known yet which rows there are
    gone: Gone | None = None  # clips of records that are not there
    limit: int | None = None  # rows that were read, from the first of the table; None: all
    before: tuple[str, ...] = ()  # what is done before, in lines

    @property
    def to_render(self) -> int | str:
        """How many rows are to be rendered, for people."""
        return self.counts.pending

    @classmethod
    def of(cls, plan: JobPlan, **values: Any) -> Self:
        """Return what another plan says, and these values."""
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
            "audits": f"about {count_text(round(self.audits.num_audits), 'row')}" if self.audits else None,
            "output": self.output,
        }

    def parts(self, wanted: PlanOptions) -> Iterator[str | JobPlan]:
        """Yield what is printed: lines, plans of runs that come first, and this one."""
        yield self


class PlanRun(Protocol):
    """Returns what a run of a job would do."""

    def __call__(
        self, job: Job, watch: Watch, wanted: PlanOptions, *, table: str | None = None
    ) -> JobPlan: ...
