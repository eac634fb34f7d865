"""What audits may cost: a share of the models' time and one row, whatever workers do in whatever order."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given, settings, strategies as st

from framefleet import Audit, Batching
from framefleet.cluster.driver.audits import Audits
from framefleet.cluster.driver.earlier_runs import Adoption, TakenBack
from framefleet.cluster.driver.tally import Tally
from framefleet.pipeline.render.audit.schedule import (
    MAX_KINDS,
    SHARE,
    AuditedKinds,
    ComputeTime,
    is_affordable,
    is_small,
    size_class,
)
from framefleet.pipeline.render.audit.verdict import DIFFERED, EQUAL, Audited, Verdict, apart, with_remark
from framefleet.pipeline.rows.tables.index import RowIndex
from tests.long import examples
from tests.rows import RECORD

SECONDS = st.floats(0.01, 100.0)


@settings(max_examples=examples(200))
@given(st.lists(st.tuples(SECONDS, SECONDS), max_size=60), st.floats(0.001, 1.0))
def test_audits_take_at_most_their_share_and_one_row(rows: list[tuple[float, float]], share: float) -> None:
    time, last_s = ComputeTime(), 0.0
    for row_s, audit_s in rows:
        time += ComputeTime(rows_s=row_s)
        if is_affordable(share, time):
            time += ComputeTime(audits_s=audit_s)
            last_s = audit_s
        assert time.audits_s - last_s <= share * time.rows_s + 1e-9


@given(SECONDS, st.integers(1, 50))
def test_audits_that_were_ordered_count_before_they_have_ended(rows_s: float, num_open: int) -> None:
    time = ComputeTime(rows_s=rows_s)
    assert not is_affordable(1.0, time, num_open=num_open), "nothing is known of how long one takes"
    assert is_affordable(1.0, time, num_open=num_open, longest_s=rows_s) == (num_open == 1)


@given(st.dictionaries(st.text("abc", min_size=1), st.integers(1, 100), min_size=1, max_size=8))
def test_the_most_informative_kind_has_the_most_rows(num_rows: dict[str, int]) -> None:
    kinds = AuditedKinds()
    informative = max(num_rows, key=lambda kind: kinds.rank(kind, num_rows[kind]))
    assert num_rows[informative] == max(num_rows.values())


def test_of_kinds_with_as_many_rows_batched_ones_come_first_and_then_new_sizes() -> None:
    kinds = AuditedKinds()
    for kind, size in (("known", 2.0), ("new", 4.0)):
        kinds.saw(kind, size)
        kinds.compared(kind, 2.0)
    assert kinds.rank("alone", 5) < kinds.rank("known", 5) < kinds.rank("new", 5)
    assert [size_class(size) for size in (1.0, 1.3, 2.0, 2.1, 4.0, 8.0, 9.0)] == [0, 1, 1, 2, 2, 3, 4]


class Job:
    """A driver's audits of rows that nobody renders. kinds: of the rows, in the order of the table."""

    def __init__(self, kinds: list[str], audit: Audit, before: ComputeTime | None = None) -> None:
        self.kinds, self.num_compared = kinds, Counter[str]()
        self.tally, self.adoption, index = Tally(len(kinds), now=0.0), Adoption(), RowIndex()
        index.add((number, _row_id(number)) for number in range(len(kinds)))
        run = SimpleNamespace(
            audit=audit,
            batching=Batching(),
            index=index,
            adoption=self.adoption,
            model_time=before or ComputeTime(),
        )
        nothing = SimpleNamespace(drop=lambda: None, withdraw=lambda kind: TakenBack())
        self.audits = Audits(cast(Any, run), cast(Any, nothing), cast(Any, nothing), lambda: None, self.tally)
        for number, kind in enumerate(kinds):
            self.audits.choose(_row_id(number), kind)

    def lease(self, number: int) -> bool:
        return self.audits.order(_row_id(number), self.kinds[number])

    def end(self, number: int, order: bool, *, audit_s: float = 1.0, verdict: Verdict = "equal") -> None:
        """Have a row end that took a second, and audit_s more if it was to be compared."""
        kind, record = self.kinds[number], replace(RECORD, row_id=_row_id(number))
        self.tally.model_time += ComputeTime(rows_s=1.0, audits_s=audit_s if order else 0.0)
        if order:
            self.num_compared[kind] += 1
            audited = Audited(kind=kind, row_id=record.row_id, verdict=verdict, seconds=audit_s)
            self.audits.follow("w", audited)
            record = with_remark(record, EQUAL if verdict == "equal" else apart(DIFFERED))
        self.audits.ended(record, kind, was_batched=not order or verdict == "equal")

    def render(self, *, num_workers: int = 1, audit_s: float = 1.0) -> None:
        """Render all rows; each worker has one in hand."""
        in_hand: list[tuple[int, bool]] = []
        for number in range(len(self.kinds)):
            in_hand.append((number, self.lease(number)))
            if len(in_hand) == num_workers:
                self.end(*in_hand.pop(0), audit_s=audit_s)
        for row in in_hand:
            self.end(*row, audit_s=audit_s)


def _row_id(number: int) -> str:
    return f"{number:032x}"


@settings(max_examples=examples(60), deadline=None)
@given(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=300), st.integers(1, 40), st.floats(0.5, 4))
def test_a_job_on_any_number_of_workers_keeps_to_its_share(
    kinds: list[str], num_workers: int, audit_s: float
) -> None:
    job = Job(kinds, Audit())
    job.render(num_workers=num_workers, audit_s=audit_s)
    assert job.tally.model_time.audits_s <= SHARE * len(kinds) + audit_s + 1e-9
    assert job.num_compared.total() >= 1
    if is_small(SHARE, len(kinds)):
        (kind,) = job.num_compared
        assert kinds.count(kind) == max(Counter(kinds).values())
    figures = job.audits.figures()
    assert figures is not None
    assert figures.kinds == {kind: kind in job.num_compared for kind in kinds}
    assert figures.most_wrong <= figures.num_unaudited == len(kinds) - job.num_compared.total()


@settings(max_examples=examples(10), deadline=None)
@given(st.integers(1, 12), st.integers(1, 8))
def test_each_kind_of_a_long_job_is_compared(num_kinds: int, num_workers: int) -> None:
    job = Job([f"kind {number % num_kinds}" for number in range(200 * num_kinds + 200)], Audit())
    job.render(num_workers=num_workers)
    assert len(job.num_compared) == num_kinds


def test_a_run_that_goes_on_with_a_job_has_what_the_share_of_both_leaves() -> None:
    spent = Job(["a"] * 26, Audit(), before=ComputeTime(rows_s=20.0, audits_s=1.0))
    spent.render()
    assert spent.num_compared.total() == 0
    saved = Job(["a"] * 26, Audit(), before=ComputeTime(rows_s=200.0, audits_s=1.0))
    saved.render()
    assert 1 <= saved.num_compared.total() <= SHARE * 226


def test_a_difference_ends_the_limit_for_all_other_kinds() -> None:
    kinds = ["a", "b", "c", "d"] * 60
    job = Job(kinds, Audit())
    order = job.lease(0)
    assert order
    job.end(0, order, verdict="differs")
    for number in range(1, len(kinds)):
        job.end(number, job.lease(number))
    assert all(job.num_compared[kind] >= 2 for kind in "bcd"), "as many as without a share"
    assert job.num_compared["a"] == 1, "rows of this kind are plain calls now"


def test_a_bound_or_a_number_takes_as_many_audits_as_it_takes() -> None:
    assert (Audit().limit, Audit(share=0.5).limit) == (SHARE, 0.5)
    assert Audit(at_most=0.1).limit is Audit(every=4).limit is Audit(at_most=0.1, share=0.01).limit is None
    assert Audit(every=4, share=0.1).limit == 0.1
    job = Job(["a"] * 40, Audit(every=1))
    job.render()
    assert job.num_compared.total() == 40
    bound = Job(["a"] * 40, Audit(at_most=0.05))
    bound.render()
    figures = bound.audits.figures()
    assert figures is not None and figures.most_wrong <= 2


def test_a_kind_is_compared_again_once_its_forwards_are_larger() -> None:
    kinds = AuditedKinds()
    kinds.compared("a", 2.0)
    assert [kinds.saw("a", size) for size in (1.0, 2.0, 3.5, 4.0, 8.0, 8.0)] == [
        *(False, False, True, False, True, False)
    ]
    assert not kinds.saw("b", 8.0), "never compared: its first audit is to come"
    assert kinds.outcomes() == {"a": True, "b": False}


@pytest.mark.parametrize("number", [0, MAX_KINDS - 1, MAX_KINDS, MAX_KINDS + 1])
def test_after_a_difference_all_workers_that_may_have_batched_such_rows_are_replaced(number: int) -> None:
    audits = Job(["a kind"], Audit()).audits
    for other in range(MAX_KINDS + 2):
        audits.leased(f"worker-{other}", [f"kind {other}"])
    audited = Audited(kind=f"kind {number}", row_id=RECORD.row_id, verdict="differs", seconds=1.0)
    suspects = range(MAX_KINDS, MAX_KINDS + 2) if number >= MAX_KINDS else [number]
    assert audits.spoiled("judge", audited) == {"judge", *(f"worker-{suspect}" for suspect in suspects)}
