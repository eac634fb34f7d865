"""In: what Ray raised for a call, or what a worker reports. Out: why the worker is lost, or must end.

Also what that says about its machine, lane by lane, and about its rows.
"""

from __future__ import annotations

import re
import time
from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

import ray
from ray.exceptions import ActorUnavailableError, RayError, RayTaskError, TaskCancelledError

from framefleet.cluster.dispatch.faults import SILENT_REST_S, FaultPolicy, Hosts, LossKind, LostRows
from framefleet.cluster.worker.blame import culprit_of
from framefleet.cluster.worker.messages import WorkerReport
from framefleet.pipeline.errors import FramefleetError, count_text
from framefleet.pipeline.model.environment import lines_beginning
from framefleet.pipeline.rows.identity import LaneKey

ANSI = re.compile(r"\x1b\[[0-9;]*m")
_FIELD = re.compile(r"\t\w+: ")  # class_name, actor_id, pid, ip: known, or of no use to people
_ADDRESS = re.compile(r"^\tip: (\S+)$", re.MULTILINE)
_HEADS = ("The actor died unexpectedly before finishing this task", "The actor died because of an error")
_MEMORY = re.compile(r"Memory on the node \(IP: [^,]*, ID: [^)]*\) was (\S+) used / (\S+) limit")
_DETAIL = re.compile(r"Worker exit detail: (.*?)(?: There are some potential root| Some common causes|$)")
_PID = re.compile(r"^\tpid: (\d+)$", re.MULTILINE)
_CRASH = re.compile(r"\*\*\* (SIG\w+) received")
_SUDDEN = "connection error code 2"
_MAX_CHARACTERS = 400
# A store that restarts is out of reach for everybody, and the first to reach it again are seconds ahead.
CUT_OFF_S = 60.0
RECOVERY_S = 90.0  # a request that hangs may last a minute, and the pause after it some seconds
_GONE = ("node has died", "node was terminated")


def _num_oom_kills() -> int:
    return sum(int(line.split()[1]) for line in lines_beginning("/proc/vmstat", ("oom_kill ",)))


_OOM_KILLS_BEFORE = _num_oom_kills()


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """Why a worker is lost, or must end."""

    reason: str
    kind: LossKind
    suspects: tuple[str, ...] | None = None  # those of its rows that may be the cause, if not all
    error: FramefleetError | None = None  # ours, if that is the reason
    address: str | None = None  # of its machine, if Ray names one
    is_able: bool = False  # the worker can hand its rows back first


def cause_of_loss(error: RayError, *, is_ready: bool) -> Cause:
    """Return why a call failed, and whose fault it is. is_ready: the worker had loaded its model."""
    if isinstance(error, RayTaskError):
        return _raised(error, is_ready=is_ready)
    text = str(error)
    reason, address = cause_of_death(text), address_in(text)
    if is_of_its_machine(text):
        return Cause(reason=reason, kind="gone", suspects=(), address=address)
    if isinstance(error, ActorUnavailableError):
        reason = "out of reach: Ray has ended on its machine, or its network is down"
        return Cause(reason=reason, kind="silent", suspects=(), address=address)
    return Cause(reason=reason, kind="died" if is_ready else "machine", address=address)


def _raised(error: RayTaskError, *, is_ready: bool) -> Cause:
    """Return the cause if the worker raised outside of a row: at its start, or in its render thread."""
    # Not only an Exception: a recipe may raise GeneratorExit, and Ray's own text is coloured.
    cause = error.cause if isinstance(error.cause, BaseException) else error
    ours = cause if isinstance(cause, FramefleetError) else None
    if ours and not is_ready:
        return Cause(reason=ours.problem, kind="refused", error=ours)  # these say what must change
    reason, culprit = f"{type(cause).__name__}: {cause}", culprit_of(cause)
    if isinstance(cause, TaskCancelledError):
        reason = "its process was interrupted (SIGINT)"
    if culprit.blame == "row" and is_ready:
        return Cause(reason=reason, kind="died")
    return Cause(reason=reason, kind="machine", suspects=() if culprit.blame == "host" else None, error=ours)


def cause_of_death(text: str) -> str:
    """Return what killed a worker, from the text of a RayError: its last line may be a link to read."""
    text = ANSI.sub("", text)
    if memory := _MEMORY.search(text):
        used, limit = memory.groups()
        return f"Ray ended it, as the machine ran out of memory: {used} of {limit} in use"
    lines = [line for line in text.splitlines() if line.strip() and not _FIELD.match(line)]
    message = " ".join(line.strip() for line in lines if not line.startswith(_HEADS))
    message = message or " ".join(text.split())
    if detail := _DETAIL.search(message):
        message = detail.group(1)
    if is_of_its_machine(message):
        return "its machine is gone: Ray has lost contact with it"
    if _SUDDEN in message:
        return _sudden_death(text)
    if len(message) <= _MAX_CHARACTERS:
        return message
    half = _MAX_CHARACTERS // 2  # the beginning and the end, because a traceback has its error last
    return f"{message[:half]} … {message[-half:]}"


def _sudden_death(text: str) -> str:
    """Return which signal ended a process of this machine. Ray's log of it names the signal of a crash."""
    pid, node = _PID.search(text), ray._private.worker._global_node
    if not (pid and node and node.node_ip_address == address_in(text)):
        return "its process ended without a message: killed (e.g. by the kernel, out of memory), or crashed"
    for log_file in Path(node.get_logs_dir_path()).glob(f"*_{pid.group(1)}.log"):
        if crash := _CRASH.search(log_file.read_text(errors="replace")):
            return f"its process crashed with {crash.group(1)}"
    num_killed = _num_oom_kills() - _OOM_KILLS_BEFORE
    return (
        "its process was killed (e.g. by SIGKILL), or its own code ended it (os._exit) or its connection; "
        f"out-of-memory kills by this kernel meanwhile: {num_killed}"
    )


def is_of_its_machine(text: str) -> bool:
    """Return whether a RayError is about the machine, not only about the worker."""
    return any(words in text for words in _GONE)


def address_in(text: str) -> str | None:
    """Return the address of the machine that a RayError names, if any."""
    match = _ADDRESS.search(ANSI.sub("", text))
    return match.group(1) if match else None


class Storing:
    """When each worker last reported a stored row. Takes `now` from its caller."""

    def __init__(self) -> None:
        self._last: dict[str, float] = {}  # by worker
        self._first: dict[str, float] = {}  # by silent worker: when another was first seen to store meanwhile

    def stored(self, worker: str, *, now: float) -> None:
        self._last[worker] = now

    def is_cut_off(self, worker: str, *, silent_s: float, now: float) -> bool:
        """Return whether the store does not answer this worker only. silent_s: for how long.

        After an outage for all, some store again while others still wait for a request that hangs, or for
        their next try: so others must have stored for as long as these may last.
        """
        if silent_s < CUT_OFF_S:
            return False
        began = now - silent_s
        last = max((at for other, at in self._last.items() if other != worker), default=began)
        if last <= began + CUT_OFF_S / 2:
            return False
        if self._first.get(worker, began) <= began:  # of an earlier silence
            self._first[worker] = last
        return last - self._first[worker] >= RECOVERY_S


def cause_to_end(
    report: WorkerReport, faults: FaultPolicy, *, is_cut_off: bool, longest_still_s: float
) -> Cause | None:
    """Return what is wrong with the worker; None if it may continue.

    is_cut_off: the output does not answer this worker only. longest_still_s: how long its rows may make no
    progress.
    """
    if blamed := [failed for failed in report.failed if failed.blame != "row"]:
        first = blamed[0]
        reason = f"{first.error_type}: {first.message} ({first.why})"
        suspects = tuple(failed.row_id for failed in blamed if failed.blame == "worker")
        is_able = all(failed.blame == "memory" for failed in blamed)
        return Cause(reason=reason, kind="machine", suspects=suspects, is_able=is_able)
    if is_cut_off:
        reason = f"the output has not answered it for {report.store_silent_s:.0f} s, but answers others"
        return Cause(reason=reason, kind="machine", suspects=())
    if report.writing_s > faults.longest_writing_s:
        if report.measuring:
            section, row_id = report.measuring
            reason = f"it hung: a function of `{section}` has not returned for {report.writing_s:.0f} s"
            return Cause(reason=reason, kind="died", suspects=(row_id,))
        doing = "storing" if report.is_storing else "encoding"
        reason = f"it hung: {doing} a clip has taken {report.writing_s:.0f} s so far"
        return Cause(reason=reason, kind="machine", suspects=() if report.is_storing else None)
    if report.still_s > longest_still_s:
        rows = count_text(len(report.rendering), "row")
        reason = f"it hung: no progress for {report.still_s:.0f} s with {rows}"
        return Cause(reason=reason, kind="died", suspects=report.rendering)
    if report.is_leaving:  # we do not know who sent it: the code of a row may have
        return Cause(reason="its process was sent SIGTERM", kind="died", is_able=True)
    return None


class LaneHosts:
    """What is known about machines, for each lane: a fault says nothing about work for another lane."""

    def __init__(self, faults: FaultPolicy) -> None:
        self._faults = faults
        self._by_lane: dict[LaneKey, Hosts] = {}
        self._proven = defaultdict[str, set[str]](set)  # by model: where a row of it was rendered
        self.closed: dict[LaneKey, FramefleetError] = {}  # lanes that were given up, each with its reason

    def of(self, lane: LaneKey) -> Hosts:
        if lane not in self._by_lane:
            self._by_lane[lane] = Hosts(self._faults, self._proven[lane.model])
        return self._by_lane[lane]

    def fault(self, lane: LaneKey, worker: str, cause: Cause, *, loss: LostRows, now: float) -> float | None:
        """Do what `Hosts.fault` does, for a worker of a lane. A machine out of reach rests for all lanes."""
        hosts = self.of(lane)
        host = hosts.host_of(worker)
        starts_at = hosts.fault(worker, cause.reason, kind=cause.kind, now=now, loss=loss, error=cause.error)
        if cause.kind == "silent" and host:
            for other in self._by_lane.values():
                other.rest(host, now + SILENT_REST_S)
        return starts_at

    def use_again(self, alive: Collection[str]) -> None:
        for hosts in self._by_lane.values():
            hosts.use_again(alive)

    def blocked(self, lanes: Iterable[LaneKey]) -> set[str]:
        """Return the machines that none of these lanes uses any more."""
        by_lane = [set(self.of(lane).to_avoid(time.monotonic())[0]) for lane in lanes]
        return set.intersection(*by_lane) if by_lane else set()

    def is_unfit(self, lane: LaneKey, worker: str, host: str | None) -> bool:
        """Return whether a lane was given up, or no longer uses a worker or its machine."""
        hosts = self.of(lane)
        is_blocked = host is not None and hosts.is_blocked(host)
        return lane in self.closed or is_blocked or hosts.is_barred(worker)

    def renew(self) -> None:
        """Forget refusals and faults, because the weights have changed."""
        self._by_lane.clear()
        self._proven.clear()
        self.closed.clear()

    def unused(self, *, are_several: bool) -> tuple[str, ...]:
        return tuple(
            f"{lane}: {place}" if are_several and str(lane) else place
            for lane, hosts in self._by_lane.items()
            for place in hosts.unused
        )
