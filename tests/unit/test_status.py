"""An output's files tell how far it is: by its driver's word while it works, else by counting."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import framefleet
from framefleet import FleetError, JobError, Store
from framefleet.cluster.driver.earlier_runs import spent_before
from framefleet.cluster.driver.epoch_lock import HELD
from framefleet.cluster.driver.lock import DriverLock, Holder, told_of
from framefleet.cluster.driver.progress import num_rendering
from framefleet.cluster.driver.tally import MAX_GONE_TOLD, Tally
from framefleet.pipeline.guards.redaction import keep_secrets
from framefleet.pipeline.metrics import CLIP_BYTES, STORE_BYTES, WORKER_SECONDS, WORKERS
from framefleet.pipeline.outputs.layout import ROWS, clip_path
from framefleet.plugins.watch import status_command as status_module
from framefleet.plugins.watch.status import DriverSeen, driver_of
from framefleet.plugins.watch.status_command import headline_of
from tests.commands import command
from tests.outputs import UNDER_WAY, write_driver, write_output
from tests.rows import failure, record

STATES: tuple[Any, ...] = ("running", "silent", "gone", "ended")
THERE = {"machine": "another", "host": "far"}


@pytest.fixture(autouse=True)
def held() -> None:
    HELD.add("me")


def test_a_place_that_is_no_output_is_told(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="is not an output"):
        framefleet.status(str(tmp_path))
    assert command("status", tmp_path).exit_code == 2
    with pytest.raises(JobError, match="check the path"):
        framefleet.open_output(str(tmp_path / "nowhere"))


def test_without_a_driver_rows_are_counted(tmp_path: Path) -> None:
    write_output(tmp_path, [record(1), record(2), record(2)], [failure()], num_invalid=3)
    found = framefleet.status(str(tmp_path))
    assert (found.num_done, found.num_failed, found.num_invalid) == (2, 1, 3)
    assert (found.num_rows, found.num_left, found.rows_per_s, found.eta_s) == (None, None, None, None)
    assert found.driver.state == "none"
    assert found.last_failures[0].message == "no"


def test_a_monitor_gets_an_exit_code(tmp_path: Path) -> None:
    write_output(tmp_path / "failed", [record(1)], [failure()])
    clip = clip_path(record(1).row_id, ".mp4")
    done = record(1, path=clip, uri=clip)
    store = write_output(tmp_path / "done", [done])
    store.write(clip, bytes(done.bytes))
    assert command("status", tmp_path / "failed").exit_code == 0
    assert command("status", tmp_path / "failed", "--check").exit_code == 1
    assert command("status", tmp_path / "done", "--check").exit_code == 0
    found = framefleet.status(str(tmp_path / "done"))
    running, silent, gone, ended = (DriverSeen(state=state, epoch=1) for state in STATES)
    failed = replace(ended, error="StoreError: no answer")
    assert replace(found, num_left=3).needs_attention  # and no driver is at work
    for driver, needs_attention in ((gone, True), (silent, True), (failed, True), (ended, False)):
        assert replace(found, driver=driver, num_left=0).needs_attention == needs_attention
    paused = "2026-11-22T04:54:14+00:00"
    for driver, since, needs_attention in ((running, "", False), (running, paused, True), (silent, "", True)):
        standing = replace(found, num_left=3, driver=driver, paused_since=since)
        outer = replace(found, num_left=None, inner={"drafts": standing})  # which has no rows yet
        assert standing.needs_attention == outer.needs_attention == needs_attention
    nothing = replace(found, num_done=0, num_rows=None, num_left=None)  # but prompts, maybe
    for told_s, needs_attention in ((60.0, False), (10_000.0, True)):
        written = replace(ended, told_s=told_s)
        assert replace(nothing, driver=written).needs_attention == needs_attention
        inner = replace(found, num_rows=1, num_left=0, driver=written)
        assert replace(nothing, inner={"drafts": inner}).needs_attention == needs_attention
    store.delete(clip)
    damaged = command("status", tmp_path / "done", "--check")
    assert damaged.exit_code == 1 and "damaged: 1 clip with a record" in damaged.stdout


def test_a_damaged_part_is_named_with_what_mends_it(tmp_path: Path) -> None:
    write_output(tmp_path, [record(0), record(1)])
    (part,) = (tmp_path / "records").glob("*.parquet")
    part.write_bytes(part.read_bytes()[:-7])
    ended = command("status", tmp_path, exits=2)
    assert f"{part.name} is damaged" in ended.stderr and "framefleet repair" in ended.stderr


def test_a_driver_that_works_is_believed_and_its_workers_are_told(tmp_path: Path) -> None:
    write_driver(write_output(tmp_path, [record(1)]))
    found = framefleet.status(str(tmp_path))
    assert (found.num_rows, found.num_done, found.num_failed, found.num_left) == (12, 5, 1, 6)
    assert (found.driver.state, found.rows_per_s, found.eta_s) == ("running", 0.5, 12.0)
    assert [worker.name for worker in found.workers] == ["worker-0"]
    line = command("status", tmp_path).stdout.splitlines()[0]  # in a pipe as long as it is
    assert line == "5/12 rows done, 1 failed, 6 left, 0.50 rows/s, 0:12 left, workers rendering: 1 of 1"
    told = told_of(replace(UNDER_WAY, workers=UNDER_WAY.workers * 5000))
    assert len(told.workers) == 1000, "so that its file stays small"


def test_while_some_rows_are_rendered_all_of_the_output_are_counted(tmp_path: Path) -> None:
    store = write_output(tmp_path, [record(1), record(2)], [failure()])
    (tmp_path / ROWS).mkdir()
    rows = pa.table({"row_id": [record(number).row_id for number in range(20)]})
    pq.write_table(rows, tmp_path / ROWS / "part-000000.parquet")
    write_driver(store, is_partial=True)
    found = framefleet.status(str(tmp_path))
    assert (found.num_rows, found.num_done, found.num_failed, found.num_left) == (20, 2, 1, 17)
    assert (found.rows_per_s, len(found.workers)) == (0.5, 1)


def test_figures_of_more_bytes_than_there_are_rows_are_believed_too(tmp_path: Path) -> None:
    store, written = write_output(tmp_path), STORE_BYTES.key("written")
    for figures, said in [
        ({CLIP_BYTES.key(): 5e12, written: 6e12}, True),
        ({CLIP_BYTES.key(): -3.0, written: 6e12}, True),  # an audit took rows of an earlier run back
        ({written: -1.0}, False),
        ({written: math.inf}, False),
    ]:
        write_driver(store, progress=replace(UNDER_WAY, figures=figures))
        assert framefleet.status(str(tmp_path)).figures == (figures if said else {})


def test_workers_that_are_there_come_first_and_those_that_went_are_few() -> None:
    tally = Tally(10**6, now=0.0)
    for number in range(3000):
        tally.joined(f"w{number}", "here")
        tally.counted(f"w{number}", {WORKER_SECONDS.key("rows"): 2.0})
        if number < 2990:
            tally.left(f"w{number}", "lost" if number % 2 else "drained")
    progress = tally.progress(1.0)
    newest = [f"w{number}" for number in range(2990, 3000)]
    assert [worker.name for worker in progress.workers[:11]] == [*newest, "w2989"]
    assert len(progress.workers) == 10 + MAX_GONE_TOLD
    assert num_rendering(progress.workers) == "0 of 10"
    assert WORKERS.of(progress.figures, "lost") == 1495
    assert WORKER_SECONDS.total(progress.figures) == 6000.0


@pytest.mark.parametrize("changed", [{"ended": True}, {"process_started": "another"}])
def test_when_the_driver_is_gone_the_records_count_and_nothing_is_promised(
    tmp_path: Path, changed: dict[str, object]
) -> None:
    write_driver(store := write_output(tmp_path, [record(1), record(2)]), **changed)
    store.write(f"checkpoints/{3:032x}.safetensors", b"half")
    found = framefleet.status(str(tmp_path))
    assert found.driver.state == ("ended" if "ended" in changed else "gone")
    assert (found.num_rows, found.num_done, found.num_left, found.num_half_done) == (12, 2, 10, 1)
    assert "10 left (1 of them half-done)" in headline_of(found)
    assert "run the same command again" in command("status", tmp_path).stdout
    assert (found.eta_s, found.workers) == (None, ())


def test_while_a_job_is_paused_its_half_done_rows_are_counted(tmp_path: Path) -> None:
    for paused_since, num_half_done in (("2026-11-22T04:54:14+00:00", 1), ("", 0)):
        store = write_output(tmp_path, [])
        write_driver(store, progress=replace(UNDER_WAY, paused_since=paused_since))
        store.write(f"checkpoints/{3:032x}.safetensors", b"half")
        assert framefleet.status(str(tmp_path)).num_half_done == num_half_done


def test_what_a_driver_was_asked_for_is_shown_until_it_has_done_it(tmp_path: Path) -> None:
    write_driver(store := write_output(tmp_path), progress=UNDER_WAY, can_pause=True)
    framefleet.pause(str(tmp_path))
    assert "asked to pause" in command("status", tmp_path).stdout
    write_driver(store, progress=replace(UNDER_WAY, paused_since="2026-11-22T04:54:14+00:00"), can_pause=True)
    assert framefleet.status(str(tmp_path)).notes == ()
    framefleet.resume(str(tmp_path))
    assert framefleet.status(str(tmp_path)).notes == ("asked to resume",)
    framefleet.stop(str(tmp_path))
    assert framefleet.status(str(tmp_path)).notes == ("asked to stop",)


@pytest.mark.parametrize("where", [THERE, {}])
def test_a_driver_that_was_not_heard_for_long_is_called_silent(tmp_path: Path, where: dict[str, str]) -> None:
    store = write_output(tmp_path)
    driver = write_driver(store, **where)
    heard = datetime.fromisoformat(driver.beat_at)
    assert driver_of(store, now=heard + timedelta(seconds=20)).state == "running"
    assert driver_of(store, now=heard + timedelta(seconds=90)).state == "silent"
    assert driver_of(store, now=heard - timedelta(seconds=90)).told_s == 0.0


def test_the_file_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    store = write_output(tmp_path)
    driver = json.loads(write_driver(store, **THERE).to_bytes())
    del driver["progress"], driver["beat_at"]
    store.write("drivers/000001.json", json.dumps(driver).encode())
    found = framefleet.status(str(tmp_path))
    assert (found.driver.state, found.driver.told_s, found.num_rows) == ("running", None, None)
    for content in (b"", b"[]", b"\xff", b'{"pid": 1}', b"9" * 5000):  # of somebody else
        store.write("drivers/000001.json", content)
        assert framefleet.status(str(tmp_path)).driver.state == "unknown"


def test_what_others_wrote_reaches_no_terminal_as_control(tmp_path: Path) -> None:
    bad = failure(message="\x1b]0;owned\x07 one\nforged: line", error_type="\x1b[2J")
    write_driver(write_output(tmp_path, failed=[bad]), host="\x1b[31m", **{"machine": "another"})
    printed = command("status", tmp_path).output
    assert "\x1b" not in printed
    assert "\nforged" not in printed
    (shown,) = json.loads(command("status", tmp_path, "--json").stdout)["last_failures"]
    assert shown["error_type"] == "\x1b[2J"


def test_watching_ends_with_the_driver_and_counts_again_only_what_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_driver(store := write_output(tmp_path, [record(1)]))

    def sleep(seconds: float) -> None:
        assert seconds == 2.0
        write_driver(store, ended=True)

    monkeypatch.setattr(status_module, "time", SimpleNamespace(sleep=sleep))
    lines = command("status", tmp_path, "--watch", "--every", "2").stdout.splitlines()
    assert [line.partition(" rows")[0] for line in lines] == ["5/12", "1/12"]


def test_the_lock_says_with_its_beat_how_far_its_job_is(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    with DriverLock(store) as lock:
        lock.tell(replace(UNDER_WAY, last_failure="\ud800", unused=("x",) * 9))
        lock.seal()
        held = Holder.parse(store.read("drivers/000001.json"))
        assert held is not None and held.progress is not None
        assert (held.progress.done, held.progress.last_failure, held.progress.unused) == (3, None, ())
        assert lock.still_ours()
        assert (datetime.now(UTC) - datetime.fromisoformat(held.beat_at)).total_seconds() < 60


def test_a_driver_that_only_merged_takes_no_figures_away(tmp_path: Path) -> None:
    store = write_output(tmp_path, [record(1)])
    report = replace(UNDER_WAY, figures={WORKER_SECONDS.key("denoise"): 5.0})
    write_driver(store, progress=report, ended=True, left_nothing=True)
    before = json.loads(command("status", tmp_path, "--json").stdout)
    assert command("compact", tmp_path).exit_code == 0
    after = json.loads(command("status", tmp_path, "--json").stdout)
    assert (after["figures"], after["rows_per_s"]) == ({WORKER_SECONDS.key("denoise"): 5.0}, 0.5)
    assert after["driver"] | {"told_s": 0} == before["driver"] | {"told_s": 0}
    write_driver(store, 3, progress=None, renders=False)
    assert driver_of(store).is_at_work, "one that merges now has the output"
    write_driver(store, **THERE, ended=False)
    write_driver(store, 3, progress=None, renders=False, ended=True)
    assert driver_of(store).state == "gone", "a later one has had the output since"


def test_the_error_that_ended_the_last_run_is_shown(tmp_path: Path) -> None:
    keep_secrets({"password": "hunter2-of-the-store"})
    store = write_output(tmp_path, [record(1)])
    with pytest.raises(FleetError), DriverLock(store):
        raise FleetError("no model\nno worker could load hunter2-of-the-store", "give another model")
    shown = command("status", tmp_path).stdout
    assert "stopped: FleetError: no model; no worker could load ***\n" in shown
    assert json.loads(command("status", tmp_path, "--json").stdout)["driver"]["error"].endswith("load ***")
    with pytest.raises(KeyboardInterrupt), DriverLock(store):
        raise KeyboardInterrupt
    assert "stopped" not in command("status", tmp_path).stdout


def test_a_driver_that_renders_one_table_after_the_other_tells_of_all(tmp_path: Path) -> None:
    figures = {WORKER_SECONDS.key("rows"): 60.0, CLIP_BYTES.key(): 5.0, WORKERS.key("idle"): 2.0}
    progress = replace(UNDER_WAY, elapsed_s=30.0, figures=figures)
    with DriverLock(store := Store(str(tmp_path))) as lock:
        for _ in range(3):
            lock.tell_more()
            lock.tell(replace(progress, done=1))
            lock.tell(progress)
        lock.seal()
    said = Holder.read(store, 1)
    assert said is not None and said.progress is not None
    assert (said.progress.done, said.progress.elapsed_s) == (3 * UNDER_WAY.done, 90.0)
    sums = {WORKER_SECONDS.key("rows"): 180.0, CLIP_BYTES.key(): 15.0, WORKERS.key("idle"): 2.0}
    assert said.progress.figures == sums
    assert spent_before(store).worker_s == 180.0
