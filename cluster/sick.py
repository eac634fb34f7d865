"""In: what a worker reports. Out: why it is to end, where that is not its rows' doing, or it hangs."""

from __future__ import annotations

from framefleet.cluster.losses import Cause
from framefleet.cluster.messages import WorkerReport
from framefleet.cluster.settings import FaultPolicy


def cause_to_end(
    report: WorkerReport, faults: FaultPolicy, *, is_cut_off: bool, longest_still_s: float
) -> Cause | None:
    """Return what is wrong with the worker; None where it may go on.

    is_cut_off: the output is silent to this worker alone. longest_still_s: how long its rows may come no
    further.
    """
    if blamed := [failed for failed in report.failed if failed.blame != "row"]:
        first = blamed[0]
        reason = f"{first.error_type}: {first.message} ({first.why})"
        suspects = tuple(failed.row_id for failed in blamed if failed.blame == "worker")
        return Cause(reason=reason, kind="machine", suspects=suspects)
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
