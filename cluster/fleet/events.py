"""What a fleet reports to its driver, one event at a time."""

from __future__ import annotations

from dataclasses import dataclass, field

from framefleet.cluster.fleet.losses import Cause
from framefleet.cluster.worker.messages import Hello, WorkerReport
from framefleet.pipeline.errors import FramefleetError
from framefleet.pipeline.rows.identity import LaneKey


@dataclass(frozen=True, slots=True)
class Ready:
    worker: str
    hello: Hello
    at: tuple[str, ...] = ()  # the widest place first: its machine, and the name that its successors share
    lane: LaneKey = LaneKey()  # noqa: RUF009
    load_s: float = 0.0  # seconds from its process's start


@dataclass(frozen=True, slots=True)
class Starting:
    """The worker is on its way. doing: what takes its time."""

    worker: str
    doing: str


@dataclass(frozen=True, slots=True)
class Reported:
    worker: str
    report: WorkerReport


@dataclass(frozen=True, slots=True)
class Lost:
    """The worker is gone for this cause; `Fleet.replace` decides whether another takes its place."""

    worker: str
    cause: Cause


@dataclass(frozen=True, slots=True)
class LaneLost:
    """No worker can serve a lane any more, for this reason. workers: had rows of it, and are gone."""

    lane: LaneKey
    error: FramefleetError
    workers: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Leaving:
    """The worker's machine will go soon, so it should hand back its rows. Sent again and again."""

    worker: str


Event = Starting | Ready | Reported | Lost | LaneLost | Leaving
