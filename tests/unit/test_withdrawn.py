"""An audit finds that rows differ, or a driver freezes: whatever is killed, all records end up right.

All is real but the two workers (`tests/made_up_workers.py`), which answer in any order.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from framefleet import Store, StoreError, Summary
from framefleet.cluster.driver.commit import Committer
from framefleet.cluster.driver.lock import DriverLock, Holder
from framefleet.cluster.fleet.events import Event
from framefleet.cluster.worker.messages import Assignment
from framefleet.jobs.render.resolve import ResolvedJob
from framefleet.pipeline.metrics import AUDITS, ROW_OUTCOMES
from framefleet.pipeline.outputs.parts.parts import PartWriter, withdraw
from framefleet.pipeline.outputs.parts.seals import gone_parts
from framefleet.pipeline.render.audit.verdict import (
    DIFFERED,
    EQUAL,
    Verdict,
    apart,
    is_doubtful,
    remark_of,
)
from tests.driving import hello_of
from tests.jobs import all_columns, job_values, prompt_rows, resolved_from, write_table
from tests.long import long_but
from tests.made_up_workers import RIGHT, WRONG, Workers, render_by

NUM_ROWS = 40
Run = Callable[[int, dict[int, Verdict]], Summary]


@pytest.fixture
def resolved(tmp_path: Path) -> Iterator[ResolvedJob]:
    table = write_table(tmp_path / "t.parquet", prompt_rows(NUM_ROWS))
    values = job_values(table, tmp_path / "out")
    with resolved_from(values) as resolved:
        yield resolved


@pytest.fixture
def run(resolved: ResolvedJob) -> Run:
    """Return what renders the job, as often as it is called, by workers with a seed and verdicts."""

    def run(seed: int, verdicts: dict[int, Verdict]) -> Summary:
        return render_by(Workers(resolved.store, hello_of(resolved), seed, dict(verdicts)), resolved)

    return run


@pytest.fixture
def store(resolved: ResolvedJob) -> Store:
    return resolved.store


def _records(store: Store, *, is_clean: bool = True) -> Counter[str]:
    """How many records there are, of right and of wrong clips, each of its own row; clips are as they say.

    is_clean: no files of other attempts are left.
    """
    records = all_columns(store, "records").to_pylist()
    assert len({record["row_id"] for record in records}) == len(records)
    for record in records:
        assert store.read(record["path"]).decode() == record["frames_sha256"]
    paths = {record["path"] for record in records}
    assert not is_clean or set(store.list("clips")) == paths
    assert store.list("pending") == []
    return Counter(record["frames_sha256"] for record in records)


@pytest.mark.parametrize("seed", long_but(range(8), *range(3)))
def test_all_rows_that_no_audit_spoke_for_are_rendered_again(seed: int, run: Run, store: Store) -> None:
    summary = run(seed, {5 + 4 * seed: "differs"})
    assert _records(store) == {RIGHT: NUM_ROWS}
    assert (summary.done, summary.failed) == (NUM_ROWS, 0)
    assert len(summary.apart) == AUDITS.total(summary.figures) == 1


def test_an_equal_audit_speaks_for_no_row_but_its_own(run: Run, store: Store) -> None:
    summary = run(3, {4: "equal", 8: "equal", 12: "equal", 16: "equal", 24: "differs"})
    assert _records(store) == {RIGHT: NUM_ROWS}
    assert (AUDITS.total(summary.figures), len(summary.apart)) == (5, 1)
    num_again = ROW_OUTCOMES.of(summary.figures, "withdrawn")
    assert 12 < num_again <= 24, "all but those that were compared and those under way"
    remarks = [remark_of(record["environment"]) for record in all_columns(store, "records").to_pylist()]
    assert set(remarks) == {EQUAL, apart(DIFFERED)}
    assert summary.audits is not None
    assert (summary.audits.num_unaudited, summary.audits.most_wrong) == (0, 0)


def test_rows_of_earlier_runs_are_taken_back_too_but_not_those_that_the_table_lacks(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    values = job_values(tmp_path / "t.parquet", tmp_path / "out")

    def run(first: int, last: int, verdicts: dict[int, Verdict]) -> Summary:
        write_table(tmp_path / "t.parquet", prompt_rows(last)[first:])
        with resolved_from(values) as resolved:
            workers = Workers(resolved.store, hello_of(resolved), 3, verdicts)
            return render_by(workers, resolved)

    store = Store(str(tmp_path / "out"))
    run(0, 20, {4: "equal"})
    assert _records(store) == {WRONG: 19, RIGHT: 1}
    with caplog.at_level("WARNING"):
        summary = run(5, 30, {4: "differs"})
    left = _records(store)
    assert left.total() == 30
    assert (gone_parts(store), summary.num_parts_gone) == ([], 0), "what was written anew is not lost"
    assert left[WRONG] in (4, 5), "rows 0 to 4, one of which may be the one that was compared"
    assert f"that are not in the table, keep their records and may be wrong: {left[WRONG]};" in caplog.text
    assert summary.done >= 10 + 14, "rows 5 to 19 count as done by this run, but for the one compared"
    later = run(0, 40, {})
    assert _records(store) == {RIGHT: 40}, "kinds that were found wrong stay apart; old rows were put back"
    assert (AUDITS.total(later.figures), later.audits and later.audits.num_unaudited) == (0, 0)


def test_rows_that_cannot_be_repeated_keep_their_records(run: Run, store: Store) -> None:
    summary = run(1, {5: "unrepeatable"})
    assert _records(store) == {WRONG: NUM_ROWS}
    assert ROW_OUTCOMES.of(summary.figures, "withdrawn") == 0
    assert (summary.apart, len(summary.unrepeatable)) == ((), 1)


class Dying(Store):
    """Lets its driver die after this many changes in records/ since it wrote down which kind is wrong."""

    num_left = 0

    def create(self, path: str, content: bytes) -> None:
        self._count(path)
        super().create(path, content)

    def delete(self, path: str) -> None:
        self._count(path)
        super().delete(path)

    def _count(self, path: str) -> None:
        if path.startswith("records") and self.list("apart"):
            self.num_left -= 1
            if self.num_left < 0:
                raise KeyboardInterrupt


@pytest.mark.parametrize("num_changes", range(3))
def test_a_driver_that_is_killed_while_it_takes_records_back_leaves_no_wrong_one(
    num_changes: int, resolved: ResolvedJob, run: Run, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Committer, "flush_due", lambda committer, now: committer.flush())  # many small parts
    dying = Dying(store.url_of(""))
    dying.num_left = num_changes
    workers = Workers(dying, hello_of(resolved), 3, {10: "equal", 20: "differs"})
    with pytest.raises(KeyboardInterrupt):
        render_by(workers, replace(resolved, store=dying))
    frames = all_columns(store, "records")["frames_sha256"].to_pylist()
    assert WRONG in frames, "some are left to take back"
    run(5, {})
    assert _records(store) == {RIGHT: NUM_ROWS}


@dataclass
class Freezing(Workers):
    """Clips hold the seed of these workers. when: what happens once this many rows are rendered."""

    when: tuple[int, Callable[[], None]] | None = None

    def wait(self, timeout_s: float) -> list[Event]:
        if self.when and self.num_rendered >= self.when[0]:
            (_, happen), self.when = self.when, None
            happen()
        return super().wait(timeout_s)

    def _clip(self, row: Assignment, *, was_batched: bool) -> bytes:
        return f"{self.seed:064x}".encode()


@pytest.mark.parametrize("num_rendered", [1, 20])
@pytest.mark.parametrize("waits", [False, True], ids=["parts written", "parts wait"])
def test_a_driver_that_wakes_after_a_takeover_ends_and_changes_nothing(
    num_rendered: int, waits: bool, resolved: ResolvedJob, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PartWriter, "due", lambda writer, now: not waits and writer.rows_waiting > 2)
    monkeypatch.setattr(Holder, "is_gone", lambda holder: True)  # as it looks once its counter stood still
    first, second, third = (Freezing(store, hello_of(resolved), seed, {}) for seed in range(3))
    seen: dict[str, bytes] = {}

    def stored() -> dict[str, bytes]:
        """What readers go by: records, and the clips that they name."""
        return {path: store.read(path) for folder in ("records", "clips") for path in store.list(folder)}

    def freeze() -> None:
        render_by(second, resolved)
        assert _records(store).total() == NUM_ROWS
        seen.update(stored())

    first.when = num_rendered, freeze
    with pytest.raises(StoreError, match="not the newest lock any more"):
        render_by(first, resolved)
    assert {path: content for path, content in stored().items() if path in seen} == seen
    assert render_by(third, resolved).done == 0
    assert stored() == seen and _records(store).total() == NUM_ROWS


def test_carried_columns_and_other_rows_of_a_part_stay(run: Run, store: Store) -> None:
    run(1, {})
    before = all_columns(store, "records")
    some = before["row_id"].to_pylist()[1:3]
    with DriverLock(store) as lock:
        gone = list(withdraw(store, lambda record: record["row_id"] in some, lock))
        assert [sorted(row_ids) for row_ids, _ in gone] == [sorted(some)]
        assert list(withdraw(store, lambda record: record["row_id"] in some, lock)) == []
    after = all_columns(store, "records")
    assert after.schema.equals(before.schema)
    kept = [row for row in before.to_pylist() if row["row_id"] not in some]
    assert sorted(after.to_pylist(), key=str) == sorted(kept, key=str)


@pytest.mark.parametrize("said", ["{", "[]", '{"audit": 3}', '{"audit": "as I say"}', "{}", '"x"'])
def test_a_record_that_says_nothing_of_audits_is_in_doubt(said: str) -> None:
    assert is_doubtful(said)
    assert not any(is_doubtful(json.dumps({"audit": remark})) for remark in (EQUAL, apart(DIFFERED)))
