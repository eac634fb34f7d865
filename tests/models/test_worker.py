"""One worker without a driver: it renders on beside slow stores and drops what it is told to."""

from __future__ import annotations

import pickle
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from framefleet import Audit, Batching, Clip, Inputs, Request, Store, StoreError
from framefleet.cluster.worker.engine_rows import EngineRows
from framefleet.cluster.worker.messages import Assignment, Hello, StoredRow, WorkerSetup
from framefleet.cluster.worker.worker import Worker
from framefleet.pipeline.engine import Engine, EngineClip, EngineRow, EngineSession
from framefleet.pipeline.metrics import LOAD, STORE_BYTES, WORKER_SECONDS
from framefleet.pipeline.model.model import ModelSettings
from framefleet.pipeline.model.specs.spec import PipelineSpec
from framefleet.pipeline.outputs.media.media_settings import Media
from framefleet.pipeline.outputs.stores import retries
from framefleet.pipeline.recipes.recipe import Recipe
from tests.jobs import wait_until
from tests.media_files import image_file, sha256
from tests.tiny import SMALLEST, tiny

WITHIN_S = 240.0


def worker_setup(model: str, store: Store, inputs: Inputs, *, keep_embeddings: bool = False) -> WorkerSetup:
    return WorkerSetup(
        model=ModelSettings(path=str(tiny(model))),
        batching=Batching(max_rows=4, min_gain=0),
        media=Media(),
        store=store,
        recipes={},
        inputs=inputs,
        audit=Audit(every=0),
        keep_embeddings=keep_embeddings,
    )


def started_worker(setup: WorkerSetup) -> Worker:
    worker = Worker(setup)
    while hasattr(worker.start(), "doing"):
        """It is loading."""
    return worker


def stored_by(worker: Worker, count: int, given: Sequence[Assignment] = ()) -> list[StoredRow]:
    """Give a worker rows, and wait for so many clips."""
    rows: list[StoredRow] = []
    ends = time.monotonic() + WITHIN_S
    while len(rows) < count and time.monotonic() < ends:
        report, given = worker.exchange(given), ()
        assert not report.failed, report.failed
        rows += report.rendered
    return rows


LATE, THERE = "a" * 32, "b" * 32


def assigned(row_id: str, model: str = "wan", **arguments: Any) -> Assignment:
    arguments = {**SMALLEST[model], "prompt": row_id, **arguments}
    return Assignment(row_id=row_id, request=Request(arguments=arguments, seed=1), attempt=1)


class LateInputs(Inputs):
    """Does not answer for one file."""

    def __init__(self, folder: Path, outage: threading.Event) -> None:
        super().__init__([str(folder)])
        self.outage, self.waiting = outage, list[str]()

    def read(self, uri: str) -> bytes:
        if "late" in uri:
            self.waiting.append(uri)
            self.outage.wait(2 * WITHIN_S)
        return super().read(uri)


class HeldStore(Store):
    """Takes clips and keeps them waiting, or does not answer for what spares work."""

    def __init__(self, folder: Path, outage: threading.Event, *held: str) -> None:
        super().__init__(str(folder))
        self.held, self.outage, self.waiting = held, outage, list[str]()

    def _hold(self, call: str) -> None:
        if call.startswith(self.held):
            self.waiting.append(call)
            assert self.outage.wait(2 * WITHIN_S)

    def read(self, path: str, count: int | None = None) -> bytes:
        self._hold(f"read {path}")
        return super().read(path, count)

    def create(self, path: str, content: bytes) -> None:
        self._hold(f"create {path}")
        super().create(path, content)


class SlowStore(Store):
    """Takes its time to store clips."""

    def create(self, path: str, content: bytes) -> None:
        time.sleep(0.4)
        super().create(path, content)


@pytest.fixture
def outage() -> Iterator[threading.Event]:
    is_over = threading.Event()
    yield is_over
    is_over.set()


def test_a_machine_without_keys_of_the_store_is_named_before_a_model_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    store = Store("s3://clips/run-7", {"endpoint_url": "http://127.0.0.1:1"})
    setup = worker_setup("wan", store, Inputs([str(tmp_path)]))
    with pytest.raises(StoreError, match="Unable to locate credentials") as refusal:
        started_worker(replace(setup, model=ModelSettings(path=str(tmp_path / "nothing"))))
    assert "where Ray is started: set AWS_ACCESS_KEY_ID" in refusal.value.fix
    assert pickle.loads(pickle.dumps(refusal.value)).exit_code == 2, "as Ray brings it to the driver"


def test_a_row_whose_image_does_not_come_holds_up_no_other(tmp_path: Path, outage: threading.Event) -> None:
    rows = []
    for row_id, name in ((LATE, "late.png"), (THERE, "there.png")):
        (tmp_path / name).write_bytes(image_file())
        image = {"uri": str(tmp_path / name), "sha256": sha256(image_file())}
        rows.append(assigned(row_id, "wan_i2v", max_sequence_length=32, image=image))
    inputs = LateInputs(tmp_path, outage)
    worker = started_worker(worker_setup("wan_i2v", Store(str(tmp_path / "out")), inputs))
    assert [stored.record.row_id for stored in stored_by(worker, 1, rows)] == [THERE]
    assert len(inputs.waiting) == 1
    assert (worker.exchange([]).still_s, len(worker._inbox)) == (0.0, 1)
    outage.set()
    assert [stored.record.row_id for stored in stored_by(worker, 1)] == [LATE]
    worker.exchange([], drain=True)


@pytest.mark.promise("The GPU does not wait for files", "Clips are encoded and uploaded in the background")
def test_a_row_is_rendered_while_the_clip_of_another_is_uploaded(
    tmp_path: Path, outage: threading.Event
) -> None:
    store = HeldStore(tmp_path, outage, "create clips/")
    worker = started_worker(worker_setup("wan", store, Inputs([])))
    for count, name in enumerate(("fox", "owl"), start=1):
        worker.exchange([assigned(name)])
        wait_until(lambda: len(store.waiting) == count)  # noqa: B023  # called at once
    outage.set()
    assert sorted(row.record.row_id for row in stored_by(worker, 2)) == ["fox", "owl"]
    worker.exchange([], drain=True)


def test_kept_embeddings_and_batch_sizes_that_do_not_come_are_done_without(
    tmp_path: Path, outage: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "WITHIN_S", 0.1)
    store = HeldStore(tmp_path, outage, "read embeddings/", "read .probes/")
    rows = [assigned(row_id, "wan") for row_id in (LATE, THERE)]
    worker = started_worker(worker_setup("wan", store, Inputs([str(tmp_path)]), keep_embeddings=True))
    assert {stored.record.row_id for stored in stored_by(worker, 2, rows)} == {LATE, THERE}
    asked = [call for call in store.waiting if "embeddings/" in call]
    assert len(asked) == 1  # of four prompts: while it does not answer it is asked no more
    worker.exchange([], drain=True)


def test_a_worker_that_serves_another_driver_starts_no_more_threads(tmp_path: Path) -> None:
    worker = started_worker(worker_setup("wan", Store(str(tmp_path)), Inputs([])))
    threads = {*threading.enumerate()}  # of which some may be ending
    worker.renew(None)
    assert isinstance(worker.start(), Hello)
    assert not {*threading.enumerate()} - threads
    worker.exchange([], drain=True)


def test_a_worker_that_serves_another_output_stores_clips_there_and_loads_nothing_again(
    tmp_path: Path,
) -> None:
    first, second = (
        worker_setup("wan", Store(str(tmp_path / name)), Inputs([])) for name in ("drafts", "full")
    )
    worker = started_worker(first)
    drafts = stored_by(worker, 1, [assigned("fox")])
    worker.renew(second)
    wait_until(lambda: isinstance(worker.start(), Hello))
    assert WORKER_SECONDS.by_label(worker.exchange([]).figures)[LOAD] == 0
    full = stored_by(worker, 1, [assigned("fox")])
    assert [row.record.uri for row in (*drafts, *full)] == [
        str(tmp_path / name / drafts[0].record.path) for name in ("drafts", "full")
    ]
    worker.exchange([], drain=True)


class CountedEngine(Engine):
    """Counts its sessions that are open."""

    open_sessions: ClassVar[int] = 0

    def spec(self) -> PipelineSpec:
        raise AssertionError("only jobs ask for it")

    def start(self, store: Store) -> EngineSession:
        CountedEngine.open_sessions += 1
        return CountedSession()


class CountedSession(EngineSession):
    def render(self, row: EngineRow) -> EngineClip:
        row.make_room()
        return EngineClip(frames=np.zeros((1, 2, 2, 3), np.uint8))

    def close(self) -> None:
        CountedEngine.open_sessions -= 1


def engine_setup(output: Path) -> WorkerSetup:
    engine = CountedEngine(type="counted", model="none")
    return replace(
        worker_setup("wan", Store(str(output)), Inputs([])),
        model=ModelSettings(path=engine.name, device="cpu", engine=engine),
    )


@pytest.mark.parametrize("is_dropped", [True, False])
def test_a_row_that_waits_for_room_in_memory_ends_when_it_is_dropped_and_is_finished_when_all_must_stop(
    is_dropped: bool, tmp_path: Path
) -> None:
    rows, ends = EngineRows(engine_setup(tmp_path), lambda *_: None), []
    row_ids = [f"{number:032x}" for number in range(9)]  # one more than have room
    for row_id in row_ids[:-1]:
        rows.submit(assigned(row_id).request, row_id, is_audited=False)
    wait_until(lambda: len(rows._ended) == 8)
    rows.submit(assigned(row_ids[-1]).request, row_ids[-1], is_audited=False)

    def end() -> None:
        if is_dropped:
            rows.drop(row_ids[-1])
        ends.extend(rows.drain())

    ending = threading.Thread(target=end, daemon=True)
    ending.start()
    ending.join(WITHIN_S)
    assert all(isinstance(outcome, Clip) for outcome in ends)
    assert sorted(outcome.row_id for outcome in ends) == row_ids[: 8 if is_dropped else 9]


def test_a_worker_that_serves_another_output_ends_what_its_engine_had_started(tmp_path: Path) -> None:
    worker = started_worker(engine_setup(tmp_path / "drafts"))
    assert CountedEngine.open_sessions == 1
    worker.renew(engine_setup(tmp_path / "full"))
    wait_until(lambda: isinstance(worker.start(), Hello))
    assert CountedEngine.open_sessions == 1
    worker.exchange([], drain=True)
    wait_until(lambda: not CountedEngine.open_sessions)


def test_a_row_that_is_still_being_stored_for_another_driver_is_not_rendered_again(
    tmp_path: Path, outage: threading.Event
) -> None:
    store, fox, owl = HeldStore(tmp_path, outage, "create clips/"), assigned("fox"), assigned("owl")
    worker = started_worker(worker_setup("wan", store, Inputs([])))
    worker.exchange([fox])
    wait_until(lambda: store.waiting)
    worker.renew(None)
    assert isinstance(worker.start(), Hello)
    assert not worker.exchange([fox, owl]).rendered
    outage.set()
    assert sorted(row.record.row_id for row in stored_by(worker, 2)) == ["fox", "owl"]
    assert not worker.exchange([]).rendered
    worker.exchange([], drain=True)


OF_EACH = {"load", "encode", "denoise", "decode", "probe", "rows", "pipeline"}


@pytest.mark.parametrize(
    ("model", "changed", "special"),
    [
        ("wan", {"audit": Audit(every=1)}, "audit"),
        ("cogvideox", {}, "upload"),
        ("sd", {"keep_embeddings": True}, "store"),
    ],
)
def test_the_seconds_of_all_causes_are_the_workers_wall_time(
    model: str, changed: dict[str, Any], special: str, tmp_path: Path
) -> None:
    store = (SlowStore if special == "upload" else Store)(str(tmp_path / "out"))
    num_rows = 12 if special == "upload" else 6  # more than wait for a writer
    setup = replace(worker_setup(model, store, Inputs([str(tmp_path)])), **changed)
    began = time.perf_counter()
    worker = Worker(setup)
    born = time.perf_counter()
    while hasattr(worker.start(), "doing"):
        """It is loading."""
    rows = [
        replace(assigned(f"{seed:032x}", model, prompt="a fox"), is_audited=True) for seed in range(num_rows)
    ]
    assert len(stored_by(worker, len(rows), rows)) == len(rows)
    asked = time.perf_counter()
    figures = worker.exchange([]).figures
    told = time.perf_counter()
    spent = WORKER_SECONDS.by_label(figures)
    assert 0.98 * (asked - born) <= sum(spent.values()) <= 1.02 * (told - began)
    assert OF_EACH | {special} <= spent.keys()
    assert STORE_BYTES.of(figures, "written") > sum(stored.size for stored in store.details("clips").values())
    worker.exchange([], drain=True)


IS_AWAY, GOES_ON = threading.Event(), threading.Event()
ENDS: list[bool] = []  # of the waiting


def looking(pipe: Any, request: Request) -> Any:
    """Look at the frames: of row 1 until the test lets it go on."""
    frames = np.asarray(pipe(**request.arguments, generator=request.generator(), output_type="np").frames)
    if request.seed == 1:
        IS_AWAY.set()
        ENDS.append(GOES_ON.wait(60))
    return frames


def _row(number: int, **arguments: int) -> Assignment:
    given = {**SMALLEST["wan"], "max_sequence_length": 32, "prompt": "a fox", **arguments}
    return Assignment(row_id=f"{number:032x}", request=Request(arguments=given, seed=number), attempt=1)


def test_rows_that_are_dropped_are_neither_stored_nor_reported(tmp_path: Path) -> None:
    worker = started_worker(worker_setup("wan", Store(str(tmp_path / "out")), Inputs([str(tmp_path)])))
    endless, last = _row(0, num_inference_steps=1000), _row(30)
    waiting = [_row(number) for number in range(1, 30)]
    worker.exchange([endless, *waiting])
    worker.exchange([], [row.row_id for row in (endless, *waiting)])
    found = {stored.record.row_id for stored in stored_by(worker, 1, [last])}
    while last.row_id not in found:
        found |= {stored.record.row_id for stored in stored_by(worker, 1)}
    assert endless.row_id not in found
    assert len(found) < len(waiting)
    report = worker.exchange([], drain=True)
    assert not report.handed_back and not report.failed


def test_the_driver_is_answered_while_a_row_is_left_that_runs_on_a_thread_of_its_own(tmp_path: Path) -> None:
    setup = worker_setup("wan", Store(str(tmp_path / "out")), Inputs([str(tmp_path)]))
    recipe = Recipe(name="looking", function=looking, digest="")
    worker = started_worker(replace(setup, recipes={"looking": recipe}))
    rows = [_row(number) for number in range(2)]
    rows = [replace(row, request=replace(row.request, recipe="looking")) for row in rows]
    stored_by(worker, 1, rows[:1])
    worker.exchange(rows[1:])
    assert IS_AWAY.wait(60)
    worker.exchange([], [rows[1].row_id])
    for _ in range(3):
        worker.exchange([])
    assert not ENDS
    GOES_ON.set()
    last = replace(_row(2).request, recipe="looking")
    assert [stored.record.seed for stored in stored_by(worker, 1, [replace(_row(2), request=last)])] == [2]
    assert not worker._attempts
