"""The progress and the end of a run, as plain values."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from framefleet.cluster.driver.stop import Spent
from framefleet.pipeline.metrics import BATCH_SIZES, CLIP_BYTES, ROW_OUTCOMES, WORKER_SECONDS, of_runs
from framefleet.pipeline.overview import Overview
from framefleet.pipeline.plugin import inner_outputs

if TYPE_CHECKING:
    import pyarrow as pa

    from framefleet.pipeline.outputs.gone_clips import Gone  # imports pyarrow
    from framefleet.pipeline.outputs.stores.store import Store

GONE = ("drained", "lost")

WORKER_STATES = ("rendering", "idle", *GONE)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerState:
    """One worker that has been ready. state: of `WORKER_STATES`. model: its own, of several."""

    name: str
    state: str
    node: str = ""
    rows_in_hand: int = 0
    rows_done: int = 0
    model: str = ""


def num_rendering(workers: Sequence[WorkerState]) -> str:
    """Return how many workers render, of those that are still there: "7 of 8"."""
    states = Counter(worker.state for worker in workers if worker.state not in GONE)
    return f"{states['rendering']:,} of {states.total():,}"


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditFigures:
    """What audits say about a run's rows. Rows of kinds that cannot be repeated are not judged."""

    num_equal: int = 0  # audits that found a row equal, of kinds that no audit found wrong
    num_unaudited: int = 0  # rows that were neither plain calls nor compared
    most_wrong: int = 0  # of these at most, with 95 % confidence; see `pipeline/render/audit/schedule.py`
    # Kinds (recipe, models, sizes) of rows that were not rendered by plain calls: whether one was compared.
    kinds: Mapping[str, bool] = field(default_factory=dict)

    def __add__(self, other: AuditFigures) -> AuditFigures:
        """Return what both say together, of rows of two runs: as sure, if none found a wrong row."""
        kinds = [*self.kinds.items(), *other.kinds.items()]
        compared = {kind for kind, is_compared in kinds if is_compared}
        return AuditFigures(
            num_equal=self.num_equal + other.num_equal,
            num_unaudited=self.num_unaudited + other.num_unaudited,
            most_wrong=self.most_wrong + other.most_wrong,
            kinds={kind: kind in compared for kind, _ in kinds},
        )

    @classmethod
    def of_runs(cls, *runs: RunFigures) -> AuditFigures | None:
        """Return what the audits of several runs say together; None if none of them had any."""
        audits = [run.audits for run in runs if run.audits]
        return sum(audits, cls()) if audits else None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFigures:
    """Figures of a run, under way or at its end."""

    done: int  # rows of this run that are committed, or about to be
    failed: int  # rows of this run
    elapsed_s: float
    mean_batch: float | None  # rows per forward, mean over rows
    # All that was counted, e.g. {"worker_seconds/denoise": 81.4}; docs/report.md lists the metrics.
    figures: Mapping[str, float] = field(default_factory=dict)
    audits: AuditFigures | None = None  # None: the run has no audits
    unused: tuple[str, ...] = ()  # workers and machines that are no longer used, each with its reason
    over_budget: str | None = None  # the message, if the budget ended the run
    to_continue: str | None = None  # what to do then
    before: int = 0  # rows that had a record when the run began

    @property
    def spent(self) -> Spent:
        """What the run has spent."""
        return Spent(
            elapsed_s=self.elapsed_s,
            worker_s=WORKER_SECONDS.total(self.figures),
            num_bytes=int(CLIP_BYTES.total(self.figures)),
        )


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Progress(Overview, RunFigures):
    """A job under way."""

    total: int  # rows that this run has to render
    in_flight: int
    rows_per_s: float | None  # since the first row was begun; None before the first is done
    eta_s: float | None  # None while it would be a guess
    workers: tuple[WorkerState, ...]  # all that are there, then those that left last
    last_failure: str | None = None
    waiting_for: str | None = None  # what a worker is doing that is not ready yet
    paused_since: str = ""  # for people; "" while it is not paused

    def overview(self) -> Mapping[str, object]:
        return {
            "rows": f"{self.done:,} of {self.total:,} done, {self.failed:,} failed",
            "under way": f"{self.in_flight:,}",
            "rate": None if self.rows_per_s is None else f"{self.rows_per_s:.2f} rows/s",
            "left": None if self.eta_s is None else timedelta(seconds=round(self.eta_s)),
            "workers": len(self.workers),
            "waiting for": self.waiting_for,
            "last failure": self.last_failure and self.last_failure.partition("\n")[0],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class LackingColumn:
    """A column of a file step that failed for some clips of a run, which have no value in it."""

    section: str  # of the job, whose step it is
    num: int  # clips
    example: str  # the first row, and why

    @classmethod
    def and_one(cls, section: str, before: LackingColumn | None, row_id: str, message: str) -> LackingColumn:
        """Return the column with one more clip that has no value, for this reason."""
        example = before.example if before else f"row {row_id}: {message}"
        return cls(section=section, num=before.num + 1 if before else 1, example=example)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Summary(Overview, RunFigures):
    """How a run ended."""

    apart: tuple[str, ...] = ()  # kinds of rows that differed in an audit; their later rows were plain calls
    unrepeatable: tuple[str, ...] = ()  # kinds of rows for which two plain calls of one row differ
    gone: Gone | None = None  # clips of earlier runs that are gone, if any
    num_parts_gone: int = 0  # parts of records that somebody took away during the run
    lacking: Mapping[str, LackingColumn] = field(default_factory=dict)  # columns of file steps that failed
    # How each of its inner outputs ended, which were rendered before, by name.
    inner: Mapping[str, Summary] = field(default_factory=dict)
    is_none_kept: bool = False  # no row was chosen from these to be rendered
    num_short: int = 0  # groups of rows that have not reached what a section asks for
    num_invalid: int = 0  # rows of the table that cannot be rendered, and were left out
    store: Store | None = field(default=None, repr=False, compare=False)  # the output

    @property
    def exit_code(self) -> int:
        """0 if every row has a clip, and every group of rows what is asked for; otherwise 1."""
        is_short = self.over_budget or self.failed or self.gone or self.num_parts_gone or self.num_short
        return 1 if is_short or any(summary.exit_code for summary in self.inner.values()) else 0

    def overview(self) -> Mapping[str, object]:
        audits, num = self.audits, self.audits.num_equal if self.audits else 0
        return {
            "rows": f"{self.done:,} done, {self.failed:,} failed"
            + f"; {self.before:,} done before" * bool(self.before)
            + f"; {self.num_invalid:,} left out" * bool(self.num_invalid),
            "time": timedelta(seconds=round(self.elapsed_s)),
            "mean batch": None if self.mean_batch is None else f"{self.mean_batch:.1f}",
            "audits": (f"{num:,} compared, equal" if num else "none") if audits and not self.apart else None,
            "differed": "; ".join(self.apart) or None,
            "budget": self.over_budget,
            "output": self.store.url_of("") if self.store else None,
        }

    def __add__(self, later: Summary) -> Summary:
        """Return how two runs ended that rendered the rows of one output, one after the other.

        The later one has tried rows again that failed in the earlier one.
        """
        figures, lacking = of_runs(self.figures, later.figures), {**self.lacking, **later.lacking}
        for name in self.lacking.keys() & later.lacking.keys():
            num = self.lacking[name].num + later.lacking[name].num
            lacking[name] = replace(self.lacking[name], num=num)
        num_rendered = ROW_OUTCOMES.of(figures, "done")
        return replace(
            later,
            done=self.done + later.done,
            elapsed_s=self.elapsed_s + later.elapsed_s,
            mean_batch=BATCH_SIZES.total(figures) / num_rendered if num_rendered else None,
            figures=figures,
            audits=AuditFigures.of_runs(self, later),
            unused=tuple(dict.fromkeys((*self.unused, *later.unused))),
            before=self.before,
            apart=tuple(dict.fromkeys((*self.apart, *later.apart))),
            unrepeatable=tuple(dict.fromkeys((*self.unrepeatable, *later.unrepeatable))),
            gone=later.gone or self.gone,
            lacking=lacking,
        )

    def to_json(self) -> str:
        """Return it for programs, with the store as its URL, and each inner one by its name."""
        return json.dumps(with_inner(self), default=lambda store: store.url_of(""))

    def records(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Return all records of the output, including earlier runs, as an Arrow table.

        columns: default: all. For outputs that fit in memory; see `record_tables`.
        """
        import pyarrow as pa

        from framefleet.pipeline.outputs.parts.record_tables import record_schema_of, record_tables

        assert self.store is not None  # of every summary that `render` returns
        tables = list(record_tables(self.store, columns))
        return pa.concat_tables(tables) if tables else record_schema_of(self.store).empty_table()


def with_inner(value: Any, inner_values: Callable[[Any], dict[str, Any]] | None = None) -> dict[str, Any]:
    """Return the fields of a dataclass; instead of `inner`, each inner output by its name, or null.

    inner_values: returns the values of an inner output, if not its fields.
    """
    fields = asdict(replace(value, inner={}))
    del fields["inner"]
    return fields | {
        name: (inner_values or with_inner)(value.inner[name]) if name in value.inner else None
        for name in inner_outputs()
    }
