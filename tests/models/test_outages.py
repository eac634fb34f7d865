"""A worker renders on while a store that its rows read from does not answer."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from framefleet import Inputs, Request, Store
from framefleet.cluster.worker.messages import Assignment
from framefleet.pipeline.outputs.stores import retries
from tests.media_files import image_file, sha256
from tests.one_worker import WITHIN_S, started_worker, stored_by, worker_setup
from tests.tiny import SMALLEST

LATE, THERE = "a" * 32, "b" * 32


class Outage:
    """Lasts until it is over."""

    def __init__(self) -> None:
        self._is_over = threading.Event()
        self.end = self._is_over.set
        self.waiting: list[str] = []  # what was asked meanwhile

    def ride_out(self, asked: str) -> None:
        self.waiting.append(asked)
        self._is_over.wait(2 * WITHIN_S)


class LateInputs(Inputs):
    """Does not answer for one file."""

    def __init__(self, folder: Path, outage: Outage) -> None:
        super().__init__([str(folder)])
        self.outage = outage

    def read(self, uri: str) -> bytes:
        if "late" in uri:
            self.outage.ride_out(uri)
        return super().read(uri)


class LateStore(Store):
    """Does not answer for what spares work."""

    outage: Outage

    def read(self, path: str, count: int | None = None) -> bytes:
        if path.startswith(("embeddings/", ".probes/")):
            self.outage.ride_out(path)
        return super().read(path, count)


@pytest.fixture
def outage() -> Iterator[Outage]:
    outage = Outage()
    yield outage
    outage.end()


def test_a_row_whose_image_does_not_come_holds_up_no_other(tmp_path: Path, outage: Outage) -> None:
    def row(row_id: str, name: str) -> Assignment:
        (tmp_path / name).write_bytes(image_file())
        given = {"uri": str(tmp_path / name), "sha256": sha256(image_file())}
        arguments = {**SMALLEST["wan_i2v"], "max_sequence_length": 32, "prompt": "a fox", "image": given}
        return Assignment(row_id=row_id, request=Request(arguments=arguments, seed=1), attempt=1)

    store = Store(str(tmp_path / "out"))
    worker = started_worker(worker_setup("wan_i2v", store, LateInputs(tmp_path, outage)))
    rows = [row(LATE, "late.png"), row(THERE, "there.png")]
    assert [stored.record.row_id for stored in stored_by(worker, 1, rows)] == [THERE]
    assert len(outage.waiting) == 1
    assert (worker.exchange([]).still_s, len(worker._inbox)) == (0.0, 1)
    outage.end()
    assert [stored.record.row_id for stored in stored_by(worker, 1)] == [LATE]
    worker.exchange([], drain=True)


def test_kept_embeddings_and_batch_sizes_that_do_not_come_are_done_without(
    tmp_path: Path, outage: Outage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "WITHIN_S", 0.1)
    store = LateStore(str(tmp_path))
    store.outage = outage
    arguments = {**SMALLEST["wan"], "max_sequence_length": 32}
    rows = [
        Assignment(
            row_id=row_id, request=Request(arguments={**arguments, "prompt": row_id}, seed=1), attempt=1
        )
        for row_id in (LATE, THERE)
    ]
    worker = started_worker(worker_setup("wan", store, Inputs([str(tmp_path)]), keep_embeddings=True))
    assert {stored.record.row_id for stored in stored_by(worker, 2, rows)} == {LATE, THERE}
    asked = [path for path in outage.waiting if path.startswith("embeddings/")]
    assert len(asked) == 1  # of four prompts: while it does not answer it is asked no more
    worker.exchange([], drain=True)
