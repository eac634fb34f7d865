"""A fleet in virtual time for rows of several models: who loads what, who moves when, and what that takes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from framefleet.cluster.dispatch.dispatcher import Dispatcher, Row
from framefleet.cluster.dispatch.fault_policy import FaultPolicy
from framefleet.cluster.dispatch.lease import QueueCounts
from framefleet.cluster.dispatch.model_choice import Backlog, move_from, next_model
from framefleet.jobs.plan.simulation import IDLE_S
from tests.simulator.faulty_fleet import FaultyFleet, FaultySimulation

NUM_SHAPES = 3  # of each model


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedModel:
    """num_rows: of the table. row_s, load_s: seconds of a worker for a row, and to load the model.

    row_work: what a row is expected to take.
    """

    num_rows: int
    row_s: float
    load_s: float
    row_work: float = 1.0


class Routed:
    """The dispatchers of several models as one: what is said of a worker goes to that of its model."""

    def __init__(self, by_model: Mapping[str, Dispatcher]) -> None:
        self.by_model = by_model
        self.model_of: dict[str, str] = {}  # of each worker
        self._last = next(iter(by_model))

    def __getattr__(self, name: str) -> Any:
        def call(worker: str, *args: Any, **kwargs: Any) -> Any:
            self._last = self.model_of[worker]
            return getattr(self.by_model[self._last], name)(worker, *args, **kwargs)

        return call

    @property
    def finished(self) -> bool:
        return all(one.finished for one in self.by_model.values())

    @property
    def room(self) -> int:
        """Of the model that was spoken of last."""
        return self.by_model[self._last].room

    @property
    def counts(self) -> QueueCounts:
        each = [one.counts for one in self.by_model.values()]
        names = ("waiting", "leased", "done", "failed")
        return QueueCounts(**{name: sum(getattr(one, name) for one in each) for name in names})


class SeveralModels(FaultySimulation):
    """load_s: seconds that were spent on loading, by all workers; num_loads: how often, by model."""

    def __init__(
        self,
        models: Mapping[str, SimulatedModel],
        fleet: FaultyFleet,
        *,
        faults: FaultPolicy | None = None,
        window: int = 4096,
    ) -> None:
        self._models = models
        self._routed: Any = Routed({name: Dispatcher(faults, window=window) for name in models})
        seconds = {f"{name}: {n}": one.row_s for name, one in models.items() for n in range(NUM_SHAPES)}
        self._unread = {name: one.num_rows for name, one in models.items()}
        num_rows = sum(self._unread.values())
        super().__init__(self._routed, (), replace(fleet, seconds=seconds), faults=faults, num_rows=num_rows)
        self._tables = {name: _table(name, one.num_rows) for name, one in models.items()}
        self._loaded: dict[str, float] = {}  # seconds that each model took, once it was loaded
        self._coming: Counter[str] = Counter()  # workers that load, by model
        self.num_loads: Counter[str] = Counter()
        self.load_s = 0.0

    def _fill_window(self) -> None:
        for name, dispatcher in self._routed.by_model.items():
            for row in islice(self._tables[name], dispatcher.room):
                dispatcher.add(row)
                self._unread[name] -= 1
            if not self._unread[name] and dispatcher.room:
                dispatcher.close()

    def _start(self, machine: int, *, at: float, model: str | None = None) -> None:
        model = next_model(self._backlogs()) if model is None else model
        load_s = self._models[model].load_s
        super()._start(machine, at=at + load_s)
        self._routed.model_of[f"w{self._num_started}"] = model
        self._coming[model] += 1
        self.num_loads[model] += 1
        self.load_s += load_s

    def _join(self, worker: Any, now: float) -> None:
        model = self._routed.model_of[worker.name]
        self._loaded[model] = self._models[model].load_s
        self._coming[model] -= 1
        super()._join(worker, now)

    def _go_on(self, worker: Any, now: float) -> None:
        super()._go_on(worker, now)
        if not worker.is_alive or worker.held or worker.storing or now < worker.cut_until:
            return
        model = move_from(self._routed.model_of[worker.name], self._backlogs())
        if model is not None:
            self.outcome.idle_s -= IDLE_S
            self._retire(worker, now)
            self._start(worker.machine, at=now, model=model)

    def _backlogs(self) -> dict[str, Backlog]:
        there = Counter(self._routed.model_of[name] for name in self._workers)
        return {
            name: Backlog(
                num_rows=self._unread[name] + dispatcher.counts.waiting,
                row_s=dispatcher.mean_seconds,
                num_workers=there[name] + self._coming[name],
                load_s=self._loaded.get(name),
                row_work=self._models[name].row_work,
            )
            for name, dispatcher in self._routed.by_model.items()
        }


def _table(model: str, num_rows: int) -> Iterator[Row]:
    return (Row(row_id=f"{model} {n}", shape=f"{model}: {n * n % 7 % NUM_SHAPES}") for n in range(num_rows))
