"""In: what a worker reports. Out: why it is to end, where that is not its rows' doing, or it hangs."""

from __future__ import annotations

from framefleet.cluster.dispatch.fault_policy import FaultPolicy
from framefleet.cluster.fleet.losses import Cause
from framefleet.cluster.worker.messages import WorkerReport

# A store that restarts is out of reach for everybody, and those that come back first are some seconds ahead.
CUT_OFF_S = 60.0


class Storing:
    """Takes `now` from its caller."""

    def __init__(self) -> None:
        self._last: dict[str, float] = {}  # by worker: when it was heard to have stored a row

    def stored(self, worker: str, *, now: float) -> None:
        self._last[worker] = now

    def is_cut_off(self, worker: str, *, silent_s: float, now: float) -> bool:
        """Tell whether the store is silent to this worker alone. silent_s: for how long."""
        if silent_s < CUT_OFF_S:
            return False
        began = now - silent_s
        return any(at > began + CUT_OFF_S / 2 for other, at in self._last.items() if other != worker)


def cause_to_end(
    report: WorkerReport, faults: FaultPolicy, *, is_cut_off: bool, longest_still_s: float
) -> Cause | None:
    """Return what is wrong with the worker; None where it may go on.

    is_cut_off: the output is silent to this worker alone. longest_still_s: how long its rows may come no
    further.
    """
    if blamed := [failed for failed in report.failed if failed.blame not in ("row", "encoding")]:
        first = blamed[0]
        reason = f"{first.error_type}: {first.message} ({first.why})"
        suspects = tuple(failed.row_id for failed in blamed if failed.blame == "worker")
        is_able = all(failed.blame == "memory" for failed in blamed)
        return Cause(reason=reason, kind="machine", suspects=suspects, is_able=is_able)
    if is_cut_off:
        reason = f"the output has not answered it for {report.store_silent_s:.0f} s, and does others"
        return Cause(reason=reason, kind="machine")
    if report.writing_s > faults.longest_writing_s:
        if row_id := report.scoring:
            reason = f"it hung: a function of `scores` has not returned for {report.writing_s:.0f} s"
            return Cause(reason=reason, kind="died", suspects=(row_id,))
        reason = f"it hung: a clip is being encoded or stored for {report.writing_s:.0f} s"
        return Cause(reason=reason, kind="machine")
    if report.still_s > longest_still_s:
        reason = f"it hung: no progress for {report.still_s:.0f} s with {len(report.rendering)} rows"
        return Cause(reason=reason, kind="died", suspects=report.rendering)
    return None
