"""Have each of two workers render some rows, which a fast one may not leave to a slow one."""

from __future__ import annotations

from typing import Any

import pytest

from framefleet.cluster.driver.driver import Driver


@pytest.fixture
def both_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give rows once both workers are ready, and more once both have some."""
    assignments, have = Driver._assignments, set[str]()

    def in_turn(driver: Driver, worker: str) -> list[Any]:
        num_there = driver._lanes.of(worker).dispatcher.num_workers
        if len(have) < 2 and (num_there < 2 or worker in have):
            return []
        if given := assignments(driver, worker):
            have.add(worker)
        return given

    monkeypatch.setattr(Driver, "_assignments", in_turn)
