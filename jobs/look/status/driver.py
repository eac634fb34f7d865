"""In: an output. Out: its newest driver, as its file tells: whether it runs, and how far it said it was."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from framefleet.cluster.driver.holder import Holder, parse_holder
from framefleet.cluster.driver.progress import Progress
from framefleet.pipeline.outputs.parts.seals import MAX_DRIVER_BYTES, epoch_path, epochs_of
from framefleet.pipeline.outputs.stores.store import Store

# running: it beats. silent: it did not for long, by two clocks. gone: its process is, without a word. ended:
# it gave the output back. unknown: nobody can read its file. none: there was no driver.
DriverState = Literal["running", "silent", "gone", "ended", "unknown", "none"]
SILENT_S = 60.0  # six beats; and what clocks of machines are apart, as a rule, is seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverSeen:
    """The newest driver. progress: what it told last. told_s: how long ago, if it said when."""

    state: DriverState
    epoch: int = 0
    pid: int = 0
    host: str = ""
    started_at: str = ""
    told_s: float | None = None
    progress: Progress | None = None


def driver_of(store: Store, *, now: datetime | None = None) -> DriverSeen:
    """Return the newest driver of an output. now: the present, but for tests."""
    epochs = epochs_of(store)
    if not epochs:
        return DriverSeen(state="none")
    try:
        holder = parse_holder(store.read(epoch_path(epochs[-1]), MAX_DRIVER_BYTES))
    except FileNotFoundError:
        holder = None
    if holder is None:
        return DriverSeen(state="unknown", epoch=epochs[-1])
    told_s = _seconds_since(holder.beat_at, now or datetime.now(UTC))
    return DriverSeen(
        state=_state(holder, told_s),
        epoch=epochs[-1],
        pid=holder.pid,
        host=holder.host,
        started_at=holder.started_at,
        told_s=told_s,
        progress=holder.progress,
    )


def _state(holder: Holder, told_s: float | None) -> DriverState:
    if holder.ended:
        return "ended"
    if holder.is_gone():
        return "gone"
    return "silent" if holder.runs_elsewhere() and told_s and told_s > SILENT_S else "running"


def _seconds_since(moment: str, now: datetime) -> float | None:
    try:
        return max(0.0, (now - datetime.fromisoformat(moment)).total_seconds())
    except (ValueError, TypeError):  # of an earlier version, or without a zone
        return None
