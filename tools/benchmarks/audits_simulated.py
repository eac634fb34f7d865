"""What audits find in jobs of which some rows are wrong when batched: a table, by chance, of many jobs.

    python -m tools.benchmarks.audits_simulated [--jobs 200] [--every 1000] [--at-most 0.05]

The schedule, the index of rows and what follows from an audit are a driver's (`cluster/driver/audits.py`).
What is made up: rows end in the order of the table, all are batched, and an audit finds a row as it is.
"late": the wrong rows are the last ones of the table.
"""

from __future__ import annotations

import argparse
import logging
import random
import statistics
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import closing
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any, cast

from framefleet import Audit, Batching, Request
from framefleet.cluster.driver.audits import Audits
from framefleet.cluster.driver.earlier_runs import Adoption, TakenBack
from framefleet.cluster.driver.progress import AuditFigures
from framefleet.cluster.driver.tally import Tally
from framefleet.pipeline.metrics import AUDITS
from framefleet.pipeline.outputs.parts.records import Record
from framefleet.pipeline.render.audit.schedule import ComputeTime
from framefleet.pipeline.render.audit.verdict import (
    DIFFERED,
    EQUAL,
    Audited,
    apart,
    is_doubtful,
    kind_of,
    with_remark,
)
from framefleet.pipeline.rows.tables.index import RowIndex
from tests.rows import record

SIZES = (100, 1_000, 10_000, 100_000)
RATES = (1 / 2, 1 / 20, 1 / 300)
PLAIN_S = 2.0  # what a plain call takes, in rows that are not: see the table of docs/exactness.md
_RECORD = replace(record(0), environment="{}")


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedJob:
    """How one job ended. num_wrong: rows that are wrong if batched; num_left: that are so in the end."""

    num_rows: int
    num_wrong: int
    num_left: int
    num_audits: int
    is_noticed: bool
    figures: AuditFigures

    @property
    def holds(self) -> bool:
        """Whether no more rows are wrong than the summary says."""
        return self.num_left <= self.figures.most_wrong


@dataclass(slots=True)
class _Records:
    """In place of records/ and of who writes them: what is said of each row that has a record."""

    index: RowIndex
    rows: dict[str, tuple[str, Record]] = field(default_factory=dict)  # kind and record, by row_id

    def withdraw(self, kind: str) -> TakenBack:
        gone = [
            row_id
            for row_id, (its_kind, its_record) in self.rows.items()
            if its_kind == kind and is_doubtful(its_record.environment)
        ]
        for row_id in gone:
            del self.rows[row_id]
        return TakenBack(num_rows=len(gone), num_before=self.index.render_again(gone))


def simulate(kinds: Sequence[int], wrong: Set[int], audit: Audit, *, row_ids: Sequence[str]) -> SimulatedJob:
    """Return how a job ends. kinds: rows of each, in turn. wrong: numbers of rows that are, if batched."""
    rows = {row_id: number for number, row_id in enumerate(row_ids)}
    with closing(RowIndex()) as index:
        index.add((number, row_id) for row_id, number in rows.items())
        records = _Records(index)
        audits, tally = _audits(index, records, audit, num_rows=len(rows))
        kind_of_row = _kinds(kinds)
        for row_id, number in rows.items():
            audits.choose(row_id, kind_of_row[number])
        for row_id, number in rows.items():
            _render(row_id, kind_of_row[number], audits, records, tally, is_wrong=number in wrong)
        while index.reopen():
            for number, row_id in index.pending_in(0, len(rows)):
                _render(row_id, kind_of_row[number], audits, records, tally, is_wrong=number in wrong)
        figures = audits.figures()
        assert figures is not None and len(records.rows) == len(rows)
        left = [row_id for row_id, (_, one) in records.rows.items() if _is_left(one, rows[row_id] in wrong)]
        summary = tally.summary(tally.progress(1.0))
        return SimulatedJob(
            num_rows=len(rows),
            num_wrong=len(wrong),
            num_left=len(left),
            num_audits=int(AUDITS.total(summary.figures)),
            is_noticed=bool(summary.apart),
            figures=figures,
        )


def _audits(index: RowIndex, records: _Records, audit: Audit, *, num_rows: int) -> tuple[Audits, Tally]:
    run = SimpleNamespace(
        audit=audit, batching=Batching(), index=index, adoption=Adoption(), model_time=ComputeTime()
    )
    tally, nothing = Tally(num_rows, now=0.0), SimpleNamespace(drop=lambda: None)
    return Audits(cast(Any, run), cast(Any, records), cast(Any, nothing), lambda: None, tally), tally


def _kinds(kinds: Sequence[int]) -> list[str]:
    of_kinds = [kind_of(Request(arguments={"height": 16, "width": 8 * (n + 1)})) for n in range(len(kinds))]
    return [kind for kind, count in zip(of_kinds, kinds, strict=True) for _ in range(count)]


def _render(
    row_id: str, kind: str, audits: Audits, records: _Records, tally: Tally, *, is_wrong: bool
) -> None:
    """Do what worker and driver do with a row, in their order."""
    was_batched = not audits.is_apart(kind)
    said = replace(_RECORD, row_id=row_id)
    audit_s = PLAIN_S if audits.order(row_id, kind) else 0.0
    tally.model_time += ComputeTime(rows_s=1.0, audits_s=audit_s)
    if audit_s:
        verdict = "differs" if is_wrong else "equal"
        audits.follow("w", Audited(kind=kind, row_id=row_id, verdict=cast(Any, verdict), seconds=audit_s))
        was_batched = not is_wrong
        said = with_remark(said, EQUAL)
    if not was_batched:
        said = with_remark(said, apart(DIFFERED))
    records.rows[row_id] = kind, audits.ended(said, kind, was_batched=was_batched)


def _is_left(said: Record, is_wrong: bool) -> bool:
    return is_wrong and is_doubtful(said.environment)


def made_up_row_ids(num_rows: int, seed: int) -> list[str]:
    draw = random.Random(f"rows {seed}")
    return [f"{draw.getrandbits(128):032x}" for _ in range(num_rows)]


def wrong_rows(num_rows: int, rate: float, seed: int, *, is_late: bool = False) -> Set[int]:
    """Return which rows are wrong: by chance, or as many at the end."""
    draw = random.Random(f"wrong {seed}")
    found = {number for number in range(num_rows) if draw.random() < rate}
    return set(range(num_rows - len(found), num_rows)) if is_late else found


def jobs_of(
    num_rows: int, rate: float, audit: Audit, num_jobs: int, *, is_late: bool = False
) -> Iterator[SimulatedJob]:
    for seed in range(num_jobs):
        wrong = wrong_rows(num_rows, rate, seed, is_late=is_late)
        yield simulate([num_rows], wrong, audit, row_ids=made_up_row_ids(num_rows, seed))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.benchmarks.audits_simulated", description=__doc__)
    parser.add_argument("--jobs", type=int, default=200, help="of 100 or 1,000 rows; of larger ones fewer")
    parser.add_argument("--every", type=int, default=Audit().every)
    parser.add_argument("--at-most", type=float)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    asked = parser.parse_args()
    logging.getLogger("framefleet").setLevel(logging.ERROR)  # each audit that differs is reported
    audit = Audit(every=asked.every, at_most=asked.at_most)
    headings = "rows, wrong if batched, noticed, wrong rows left, audits, time, said: wrong at most, holds in"
    print(f"| {' | '.join(headings.split(', '))} |", f"|{'---|' * 8}", sep="\n")
    for num_rows in asked.sizes:
        num_jobs = max(1, asked.jobs // max(1, num_rows // 2_500))
        for rate, is_late in [*((rate, False) for rate in RATES), (RATES[1], True)]:
            jobs = list(jobs_of(num_rows, rate, audit, num_jobs, is_late=is_late))
            print(
                f"| {' | '.join(_cells(jobs, rate, is_late=is_late).values())} |",
                flush=True,
            )


def _cells(jobs: Sequence[SimulatedJob], rate: float, *, is_late: bool) -> Mapping[str, str]:
    num_rows, mean = jobs[0].num_rows, statistics.mean
    wrong = [job for job in jobs if job.num_wrong]
    quiet = [job.figures.most_wrong / num_rows for job in jobs if not job.is_noticed]
    return {
        "rows": f"{num_rows:,}",
        "rate": f"1/{round(1 / rate)}{', late' * is_late}",
        "noticed": f"{mean(job.is_noticed for job in wrong):.0%}" if wrong else "-",
        "left": f"{mean(job.num_left for job in jobs):,.1f} of {mean(job.num_wrong for job in jobs):,.0f}",
        "audits": f"{mean(job.num_audits for job in jobs):,.1f}",
        "time": f"{PLAIN_S * mean(job.num_audits for job in jobs) / num_rows:.2%}",
        "said": f"{mean(quiet):.1%}" if quiet else "-",
        "holds": f"{sum(job.holds for job in jobs)} of {len(jobs)}",
    }


if __name__ == "__main__":
    main()
