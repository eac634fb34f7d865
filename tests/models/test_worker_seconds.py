"""Where a worker's time goes adds up to the time that it lived."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from framefleet import Audit, Inputs, Request, Store
from framefleet.cluster.worker.messages import Assignment
from framefleet.pipeline.metrics import STORE_BYTES, WORKER_SECONDS
from tests.one_worker import started_worker, stored_by, worker_setup
from tests.tiny import SMALLEST


class SlowStore(Store):
    def create(self, path: str, content: bytes) -> None:
        time.sleep(0.4)
        super().create(path, content)


OF_EACH = {"load", "encode", "denoise", "decode", "probe", "rows", "pipeline"}


@pytest.mark.daily(2)
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
    worker = started_worker(setup)
    rows = [
        Assignment(
            row_id=f"{seed:032x}",
            request=Request(arguments={**SMALLEST[model], "prompt": "a fox"}, seed=seed),
            attempt=1,
            is_audited=True,
        )
        for seed in range(num_rows)
    ]
    assert len(stored_by(worker, len(rows), rows)) == len(rows)
    time.sleep(0.3)  # it waits for more
    figures = worker.exchange([]).figures
    wall_s = time.perf_counter() - began
    spent = WORKER_SECONDS.by_label(figures)
    assert sum(spent.values()) == pytest.approx(wall_s, rel=0.02)
    assert OF_EACH | {special} <= spent.keys()
    assert STORE_BYTES.of(figures, "written") > sum(stored.size for stored in store.details("clips").values())
    worker.exchange([], drain=True)
