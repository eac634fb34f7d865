"""A fleet is begun in a thread of its own, and ends with its context however either side fares."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Any, Self, cast

import pytest

from framefleet.cluster.dispatch.faults import FaultPolicy
from framefleet.cluster.fleet import fleet as fleet_module
from framefleet.cluster.fleet.settings import FleetSettings
from framefleet.cluster.fleet.start import Start
from framefleet.cluster.worker.messages import WorkerSetup
from framefleet.pipeline.errors import FleetError
from framefleet.pipeline.model.model import ModelSettings


class Fleet:
    """In place of one on Ray: notes in which threads it begins and ends, and by what."""

    told: list[Any]
    fails: bool

    def __init__(self, *_: object, **__: object) -> None: ...

    def __enter__(self) -> Self:
        if self.fails:
            raise FleetError("no Ray", "start it")
        self.told.append(threading.current_thread())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.told += [threading.current_thread(), error]


@pytest.fixture(autouse=True)
def fleet(monkeypatch: pytest.MonkeyPatch) -> type[Fleet]:
    Fleet.told, Fleet.fails = [], False
    monkeypatch.setattr(fleet_module, "Fleet", Fleet)
    return Fleet


SETUP = cast(WorkerSetup, type("Setup", (), {"model": ModelSettings(path="m", device="cpu")}))


def begun() -> Start:
    start = Start(FleetSettings(address="a machine:1"), FaultPolicy())  # where nothing is forked
    start.begin({"": SETUP}, ["WanPipeline"])
    start.begin({"": SETUP}, ["WanPipeline"])
    return start


def test_it_begins_and_ends_in_one_thread_that_is_not_the_drivers() -> None:
    with begun() as start:
        assert isinstance(start.fleet(lambda: None), Fleet)
    began, ended, error = Fleet.told
    assert began is ended is not threading.current_thread()
    assert error is None


def test_what_the_driver_ends_by_the_fleet_is_told() -> None:
    with pytest.raises(FleetError, match="workers keep dying") as raised, begun() as start:
        start.fleet(lambda: None)
        raise FleetError("workers keep dying", "look why")
    assert Fleet.told[-1] is raised.value


def test_a_fleet_that_nobody_asked_for_ends_too() -> None:
    with pytest.raises(KeyboardInterrupt), begun():
        raise KeyboardInterrupt
    assert isinstance(Fleet.told[-1], KeyboardInterrupt)


def test_why_it_cannot_start_is_said_where_it_is_asked_for(fleet: type[Fleet]) -> None:
    fleet.fails = True
    with pytest.raises(FleetError, match="no Ray"), begun() as start:
        start.fleet(lambda: None)
    with begun():
        """A table that was refused meanwhile is the better reason."""


def test_without_a_beginning_nothing_ends() -> None:
    with Start(FleetSettings(), FaultPolicy()):
        pass
    assert Fleet.told == []
