"""Who holds an output: one process on one machine, as text and back; and whether it still runs."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from pydantic import TypeAdapter

from framefleet.cluster.driver.progress import AuditFigures, Progress
from framefleet.pipeline.guards.json_text import parse_json
from framefleet.pipeline.metrics import added, is_summed
from framefleet.pipeline.outputs.parts.seals import MAX_DRIVER_BYTES, Sealed, epoch_path
from framefleet.pipeline.outputs.stores.store import Store

PROC = Path("/proc")
GONE_STATES = {"Z", "X"}  # ended, but its parent has not asked yet
MAX_WORKERS_TOLD = 1000  # a hundred kilobytes; the lock depends on a file that can be read

HELD: set[str] = set()  # owners of this process that hold an output, or try to


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """One driver: a process on a machine, and what it has said of its output."""

    owner: str
    host: str
    machine: str  # where it is equal, process ids mean the same to us
    pid: int
    process_started: str  # by the machine's own clock; tells a process from a later one with its id
    beat: int
    started_at: str  # for people; clocks of machines are not compared
    ended: bool = False  # it has given the output back
    left_nothing: bool = False  # and has finished all that it began
    sealed: Sealed | None = None  # parts of earlier epochs that count, see `outputs/parts/seals.py`
    merged: Sealed = field(default_factory=dict)  # parts whose rows are in larger ones now
    # Of each run of such larger parts, how many count.
    merges: Mapping[str, int] = field(default_factory=dict)
    progress: Progress | None = None  # at its last beat, for those who read the output from elsewhere
    beat_at: str = ""  # for people too
    tables: tuple[str, ...] = ()  # of added rows, that it renders before it ends: its answer to `add`

    def to_bytes(self) -> bytes:
        return json.dumps(asdict(self)).encode("utf-8")

    def runs_elsewhere(self) -> bool:
        return not self.machine or self.machine != this_machine()

    def is_gone(self) -> bool:
        """Tell whether it certainly writes no more, as far as this machine can know."""
        if self.ended:
            return True
        if self.runs_elsewhere():
            return False
        is_running = process_started(self.pid) == self.process_started
        is_left = self.pid == os.getpid() and self.owner not in HELD
        return is_left or not is_running


def told_of(progress: Progress, earlier: Progress | None = None) -> Progress:
    """Return what a driver's file says, without texts of others, which not every reader can read.

    earlier: what it said of rows that the same driver rendered before these; counts are of both together.
    """
    workers = progress.workers[:MAX_WORKERS_TOLD]
    told = replace(progress, workers=workers, last_failure=None, waiting_for=None, unused=())
    if earlier is None:
        return told
    figures = {key: value for key, value in earlier.figures.items() if is_summed(key)}
    audits = [one.audits for one in (earlier, progress) if one.audits]
    return replace(
        told,
        total=earlier.total + progress.total,
        done=earlier.done + progress.done,
        failed=earlier.failed + progress.failed,
        elapsed_s=earlier.elapsed_s + progress.elapsed_s,
        audits=sum(audits, AuditFigures()) if audits else None,
        figures=added(figures, progress.figures),
    )


def this_process(owner: str) -> Holder:
    return Holder(
        owner=owner,
        host=socket.gethostname(),
        machine=this_machine(),
        pid=os.getpid(),
        process_started=process_started(os.getpid()),
        beat=0,
        started_at=moment(),
        beat_at=moment(),
    )


def moment() -> str:
    """Return the current time as files of drivers write it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


_HOLDER = TypeAdapter(Holder)


def parse_holder(content: bytes) -> Holder | None:
    """Return the holder written there; None if it is nothing we wrote."""
    try:
        return _HOLDER.validate_python(parse_json(content))
    except ValueError:  # not JSON, or other keys and values
        return None


def read_holder(store: Store, epoch: int) -> Holder | None:
    """Return what the driver of an epoch wrote last; None if that is not ours to read."""
    try:
        return parse_holder(store.read(epoch_path(epoch), MAX_DRIVER_BYTES))
    except FileNotFoundError:
        return None


@cache
def this_machine() -> str:
    """Return a name for this boot of this machine and this space of process ids; "" where there is none.

    Two containers on one machine have one boot id, but process ids of their own.
    """
    try:
        boot = (PROC / "sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink(PROC / 'self/ns/pid')}"
    except OSError:  # not Linux: the beat alone decides there
        return ""


def process_started(pid: int) -> str:
    """Return when the process started, in ticks since boot; "" if it is gone."""
    try:
        # The name in parentheses may hold spaces and parentheses itself.
        fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    state, start_time = fields[0], fields[19]  # fields 3 and 22 of proc(5)
    return "" if state in GONE_STATES else start_time
