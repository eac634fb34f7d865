"""An audit finds that rows differ: whoever rendered them, whatever is killed, all records end up right.

All is real but the two workers (`tests/made_up_workers.py`), which answer in any order.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from framefleet import Store, Summary
from framefleet.cluster.driver.commit import Committer
from framefleet.cluster.driver.lock import DriverLock
from framefleet.jobs.job.file import load_job
from framefleet.jobs.render.resolve import ResolvedJob, resolve_job
from framefleet.jobs.show.watch import Callback
from framefleet.pipeline.metrics import AUDITS, ROW_OUTCOMES
from framefleet.pipeline.outputs.parts.parts import withdraw
from framefleet.pipeline.outputs.parts.seals import gone_parts
from framefleet.pipeline.render.audit.verdict import (
    DIFFERED,
    EQUAL,
    Verdict,
    apart,
    is_doubtful,
    remark_of,
)
from tests.jobs import all_columns, job_values, prompt_rows, write_table
from tests.long import long_but
from tests.made_up_workers import RIGHT, WRONG, Workers, hello_of, render_by

NUM_ROWS = 40


@pytest.fixture
def resolved(tmp_path: Path) -> Iterator[ResolvedJob]:
    table = write_table(tmp_path / "t.parquet", prompt_rows(NUM_ROWS))
    values = job_values(table, tmp_path / "out")
    with closing(resolve_job(load_job(values), Callback())) as resolved:
        yield resolved


@pytest.fixture
def run(resolved: ResolvedJob) -> Callable[..., Summary]:
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
def test_all_rows_that_no_audit_spoke_for_are_rendered_again(
    seed: int, run: Callable[..., Summary], store: Store
) -> None:
    summary = run(seed, {5 + 4 * seed: "differs"})
    assert _records(store) == {RIGHT: NUM_ROWS}
    assert (summary.done, summary.failed) == (NUM_ROWS, 0)
    assert len(summary.apart) == AUDITS.total(summary.figures) == 1


def test_an_equal_audit_speaks_for_no_row_but_its_own(run: Callable[..., Summary], store: Store) -> None:
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
        with closing(resolve_job(load_job(values), Callback())) as resolved:
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


def test_rows_that_cannot_be_repeated_keep_their_records(run: Callable[..., Summary], store: Store) -> None:
    summary = run(1, {5: "unrepeatable"})
    assert _records(store) == {WRONG: NUM_ROWS}
    assert ROW_OUTCOMES.of(summary.figures, "withdrawn") == 0
    assert (summary.apart, len(summary.unrepeatable)) == ((), 1)


def test_both_workers_may_find_it(run: Callable[..., Summary], store: Store) -> None:
    summary = run(2, {12: "differs", 13: "differs", 25: "differs"})
    assert _records(store) == {RIGHT: NUM_ROWS}
    assert len(summary.apart) == 1


@pytest.mark.parametrize("num_changes", range(3))
def test_a_driver_that_is_killed_while_it_takes_records_back_leaves_no_wrong_one(
    num_changes: int, run: Callable[..., Summary], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Committer, "flush_due", lambda committer, now: committer.flush())  # many small parts
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        _die_after(num_changes, patched)
        run(3, {10: "equal", 20: "differs"})
    assert WRONG in _frames(store), "some are left to take back"
    run(5, {})
    assert _records(store) == {RIGHT: NUM_ROWS}


def _frames(store: Store) -> set[str]:
    return set(all_columns(store, "records")["frames_sha256"].to_pylist())


def _die_after(num_changes: int, patched: pytest.MonkeyPatch) -> None:
    """Let the driver die when it has changed so much in records/ since it wrote down which kind is wrong."""
    left = iter(range(num_changes))

    def or_die(change: Callable[..., None]) -> Callable[..., None]:
        def changed(store: Store, path: str, *content: bytes) -> None:
            if path.startswith("records") and store.list("apart") and next(left, None) is None:
                raise KeyboardInterrupt
            change(store, path, *content)

        return changed

    for name in ("create", "delete"):
        patched.setattr(Store, name, or_die(getattr(Store, name)))


def test_carried_columns_and_other_rows_of_a_part_stay(run: Callable[..., Summary], store: Store) -> None:
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
