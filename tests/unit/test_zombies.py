"""Drivers that die or freeze between a clip and its record: nothing is rendered twice, no record changes.

All is real (table, index, lock, driver, parts and clips in a folder) but the workers, whose clips are other
bytes in every run, as those of `batching: fast` are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from framefleet import Store
from framefleet.cluster.driver.commit import Committer
from framefleet.cluster.driver.lock import Holder
from framefleet.cluster.fleet.events import Event
from framefleet.cluster.worker.messages import Assignment
from framefleet.jobs.job.file import load_job
from framefleet.jobs.render.resolve import ResolvedJob, resolve_job
from framefleet.jobs.show.watch import Callback
from framefleet.pipeline.errors import StoreError
from framefleet.pipeline.metrics import ROW_OUTCOMES
from framefleet.pipeline.outputs.parts.parts import PartWriter
from tests.jobs import job_values, prompt_rows, records_of, write_table
from tests.made_up_workers import Workers, hello_of, render_by

NUM_ROWS = 24


class Unrepeatable(Workers):
    """Clips hold the seed of these workers. when: what happens once so many rows are rendered."""

    when: tuple[int, Callable[[], None]] | None = None

    def wait(self, timeout_s: float) -> list[Event]:
        if self.when and self.num_rendered >= self.when[0]:
            (_, happen), self.when = self.when, None
            happen()
        return super().wait(timeout_s)

    def _clip(self, row: Assignment, *, was_batched: bool) -> bytes:
        return f"{self.seed:064x} {row.row_id}".encode()


@pytest.fixture
def resolved(tmp_path: Path) -> Iterator[ResolvedJob]:
    values = job_values(write_table(tmp_path / "t.parquet", prompt_rows(NUM_ROWS)), tmp_path / "out")
    with closing(resolve_job(load_job(values), Callback())) as resolved:
        yield resolved


def workers_of(resolved: ResolvedJob, seed: int) -> Unrepeatable:
    return Unrepeatable(resolved.store, hello_of(resolved), seed, {})


def stored(store: Store) -> dict[str, bytes]:
    """What readers go by: records, and the clips that they name."""
    return {path: store.read(path) for folder in ("records", "clips") for path in store.list(folder)}


def check_records(store: Store) -> None:
    """Each row has one record, its clip is as it says, and nothing else is there."""
    records = records_of(store.url_of(""))
    assert len({record["row_id"] for record in records}) == len(records) == NUM_ROWS
    for record in records:
        assert store.read(record["path"])[:64].decode() == record["frames_sha256"]
    assert store.list("clips") == sorted(record["path"] for record in records)
    assert store.list("pending") == []


def test_what_a_dead_driver_had_not_committed_is_adopted_and_not_rendered_again(
    resolved: ResolvedJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die() -> None:
        raise KeyboardInterrupt

    first, second = workers_of(resolved, 1), workers_of(resolved, 2)
    first.when = 7, die
    with monkeypatch.context() as killed, pytest.raises(KeyboardInterrupt):
        killed.setattr(PartWriter, "due", lambda writer, now: False)
        killed.setattr(Committer, "close", lambda committer: None)
        render_by(first, resolved)
    assert resolved.store.list("records") == []
    summary = render_by(second, resolved)
    num_adopted = ROW_OUTCOMES.of(summary.figures, "adopted")
    assert num_adopted == first.num_rendered >= 7
    assert summary.audits is not None
    assert summary.audits.most_wrong >= num_adopted, "no audit of this run could choose them"
    assert first.num_rendered + second.num_rendered == summary.done == NUM_ROWS
    check_records(resolved.store)
    positions = [place for record in records_of(resolved.store.url_of("")) for place in record["row_indices"]]
    assert sorted(positions) == list(range(NUM_ROWS))


def test_rows_whose_clips_all_wait_for_their_records_need_no_worker(
    resolved: ResolvedJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as killed:
        killed.setattr(PartWriter, "flush", lambda writer: [])
        killed.setattr("framefleet.cluster.driver.commit._forget", lambda store, intents: None)
        render_by(workers_of(resolved, 1), resolved)
    second = workers_of(resolved, 2)
    assert ROW_OUTCOMES.of(render_by(second, resolved).figures, "adopted") == NUM_ROWS
    assert second.num_rendered == 0
    check_records(resolved.store)


@pytest.mark.parametrize("num_rendered", [1, 9, 20])
@pytest.mark.parametrize("waits", [False, True], ids=["parts written", "parts wait"])
def test_a_driver_that_wakes_after_a_takeover_ends_and_changes_nothing(
    num_rendered: int, waits: bool, resolved: ResolvedJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PartWriter, "due", lambda writer, now: not waits and writer.rows_waiting > 2)
    monkeypatch.setattr(Holder, "is_gone", lambda holder: True)  # as it looks once its counter stood still
    seen: dict[str, bytes] = {}

    def freeze() -> None:
        render_by(workers_of(resolved, 2), resolved)
        check_records(resolved.store)
        seen.update(stored(resolved.store))

    first = workers_of(resolved, 1)
    first.when = num_rendered, freeze
    with pytest.raises(StoreError, match="not the newest lock any more"):
        render_by(first, resolved)
    assert {path: content for path, content in stored(resolved.store).items() if path in seen} == seen
    assert render_by(workers_of(resolved, 3), resolved).done == 0
    check_records(resolved.store)
    assert stored(resolved.store) == seen


def test_a_part_that_was_on_its_way_when_another_took_over_does_not_count(
    resolved: ResolvedJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Holder, "is_gone", lambda holder: True)
    create, left, seen = Store.create, [True], {}

    def stalled(store: Store, path: str, content: bytes) -> None:
        if path.startswith("records") and left:
            left.clear()
            render_by(workers_of(resolved, 2), resolved)
            seen.update(stored(store))
        create(store, path, content)

    monkeypatch.setattr(Store, "create", stalled)
    with pytest.raises(StoreError, match="not the newest lock any more"):
        render_by(workers_of(resolved, 1), resolved)
    assert stored(resolved.store) == seen, "it found out, and took its part back"
    check_records(resolved.store)
