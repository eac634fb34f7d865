"""An audit finds that rows differ: whoever rendered them, whatever is killed, all records end up right.

All is real but the two workers (`tests/made_up_workers.py`), which answer in any order.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from framefleet.cluster.commit import Committer
from framefleet.cluster.lock import DriverLock
from framefleet.cluster.progress import Summary
from framefleet.jobs.job.file import job_from_mapping
from framefleet.jobs.render.resolve import ResolvedJob, resolve_job
from framefleet.jobs.show.watch import Callback
from framefleet.pipeline.errors import JobError
from framefleet.pipeline.outputs.parts.part_names import part_of
from framefleet.pipeline.outputs.parts.withdrawal import WITHDRAWN, finish_withdrawal, note_withdrawal
from framefleet.pipeline.outputs.stores.store import Store
from framefleet.pipeline.render.audit.audited import Verdict
from tests.jobs import all_columns, job_values, prompt_rows, write_table
from tests.long import long_but
from tests.made_up_workers import RIGHT, WRONG, Workers, hello_of, render_by

NUM_ROWS = 40


@pytest.fixture
def resolved(tmp_path: Path) -> Iterator[ResolvedJob]:
    table = write_table(tmp_path / "t.parquet", prompt_rows(NUM_ROWS))
    values = job_values(table, tmp_path / "out")
    with closing(resolve_job(job_from_mapping(values), Callback())) as resolved:
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
    assert len(summary.apart) == summary.num_audited == 1
    assert not store.exists(WITHDRAWN)


def test_rows_before_an_equal_audit_of_their_worker_stay(run: Callable[..., Summary], store: Store) -> None:
    summary = run(3, {10: "equal", 20: "differs"})
    found = _records(store)
    assert found.total() == summary.done == NUM_ROWS
    assert 0 < found[WRONG] <= 20, "proven, as far as anybody knows"


def test_rows_that_cannot_be_repeated_keep_their_records(run: Callable[..., Summary], store: Store) -> None:
    summary = run(1, {5: "unrepeatable"})
    assert _records(store) == {WRONG: NUM_ROWS}
    assert (summary.num_again, summary.apart, len(summary.unrepeatable)) == (0, (), 1)


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
    with DriverLock(store) as lock:
        finish_withdrawal(store, lock)
    left = [record["row_id"] for record in all_columns(store, "records").to_pylist()]
    assert 0 < len(set(left)) == len(left) <= 20
    run(5, {0: "differs"})
    assert _records(store) == {RIGHT: NUM_ROWS - len(left), WRONG: len(left)}


def _die_after(num_changes: int, patched: pytest.MonkeyPatch) -> None:
    """Let the driver die when it has changed so much in records/ since it wrote down what is to go."""
    left = iter(range(num_changes))

    def or_die(change: Callable[..., None]) -> Callable[..., None]:
        def changed(store: Store, path: str, *content: bytes) -> None:
            if path.startswith("records") and store.exists(WITHDRAWN) and next(left, None) is None:
                raise KeyboardInterrupt
            change(store, path, *content)

        return changed

    for name in ("create", "delete"):
        patched.setattr(Store, name, or_die(getattr(Store, name)))


def test_carried_columns_and_other_rows_of_a_part_stay(run: Callable[..., Summary], store: Store) -> None:
    run(1, {})
    before = all_columns(store, "records")
    (path, *_) = store.list("records")
    part, some = part_of(path), before["row_id"].to_pylist()[1:3]
    assert part is not None
    with DriverLock(store) as lock:
        note_withdrawal(store, some, run=part.run, hold=lock)
        finish_withdrawal(store, lock)
    after = all_columns(store, "records")
    assert after.schema.equals(before.schema)
    kept = [row for row in before.to_pylist() if row["row_id"] not in some]
    assert sorted(after.to_pylist(), key=str) == sorted(kept, key=str)


@pytest.mark.parametrize(
    "content", [b"{}", b'{"run": "../x", "row_ids": []}', b'{"run": "r", "row_ids": ["x"]}']
)
def test_a_withdrawal_that_framefleet_did_not_write_is_refused(content: bytes, store: Store) -> None:
    store.write(WITHDRAWN, content)
    with DriverLock(store) as lock, pytest.raises(JobError, match=r"withdrawn.json is not as") as caught:
        finish_withdrawal(store, lock)
    assert caught.value.fix == "delete it; or choose another output"


def test_after_a_damaged_withdrawal_its_fix_leads_to_right_records(
    run: Callable[..., Summary], store: Store
) -> None:
    run(1, {})
    assert _records(store) == {WRONG: NUM_ROWS}
    store.write(WITHDRAWN, b"{")
    with pytest.raises(JobError) as caught:
        run(2, {})
    names = re.match(r"delete it and (records/part-\S+-)\*, whose rows", caught.value.fix)
    assert names
    store.delete(WITHDRAWN)
    for path in store.list("records"):
        if path.startswith(names[1]):
            store.delete(path)
    run(2, {0: "differs"})
    assert _records(store, is_clean=False) == {RIGHT: NUM_ROWS}
