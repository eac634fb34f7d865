"""What a fleet tells its driver, one event at a time."""

from __future__ import annotations

from dataclasses import dataclass

from framefleet.cluster.dispatch.hosts import LossKind
from framefleet.cluster.worker.messages import Hello, WorkerReport
from framefleet.pipeline.errors import FramefleetError


@dataclass(frozen=True, slots=True)
class Ready:
    """at: where it is, the widest first: its machine, and the name that it shares with its successors.

    model: the name of its own, of several. load_s: seconds from its process's start.
    """

    worker: str
    hello: Hello
    at: tuple[str, ...] = ()
    model: str = ""
    load_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Starting:
    """The worker is on its way. doing: what takes its time."""

    worker: str
    doing: str


@dataclass(frozen=True, slots=True)
class Reported:
    worker: str
    report: WorkerReport


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """The worker is gone; `Fleet.replace` decides whether another takes its place.

    suspects: those of its rows that may be why, if not all. error: ours, if that is why.
    """

    worker: str
    reason: str
    kind: LossKind
    suspects: tuple[str, ...] | None = None
    error: FramefleetError | None = None


@dataclass(frozen=True, slots=True)
class Leaving:
    """The worker's machine is to go soon: it should hand back what it has. Sent again and again."""

    worker: str


Event = Starting | Ready | Reported | Lost | Leaving
