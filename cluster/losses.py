"""In: what Ray raised for a call. Out: why the worker is lost, and what that says of machine and rows."""

from __future__ import annotations

from dataclasses import dataclass

from ray.exceptions import ActorUnavailableError, RayError, RayTaskError

from framefleet.cluster.blame import culprit_of
from framefleet.cluster.death import address_in, cause_of_death, is_of_its_machine
from framefleet.cluster.hosts import LossKind
from framefleet.pipeline.errors import FramefleetError


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """suspects: of the worker's rows, as in `Lost`. address: of its machine, if Ray names one."""

    reason: str
    kind: LossKind
    suspects: tuple[str, ...] | None = None
    error: FramefleetError | None = None
    address: str | None = None


def cause_of_loss(error: RayError, *, is_ready: bool) -> Cause:
    """is_ready: the worker had loaded its model."""
    if isinstance(error, RayTaskError):
        return _raised(error, is_ready=is_ready)
    text = str(error)
    reason, address = cause_of_death(text), address_in(text)
    if is_of_its_machine(text):
        return Cause(reason=reason, kind="gone", suspects=(), address=address)
    if isinstance(error, ActorUnavailableError):  # its link, or the Ray of its machine
        return Cause(reason=f"out of reach: {reason}", kind="silent", suspects=(), address=address)
    return Cause(reason=reason, kind="died" if is_ready else "machine", address=address)


def _raised(error: RayTaskError, *, is_ready: bool) -> Cause:
    """The worker raised, outside of any row: as it started, or as its thread that renders ended."""
    cause = error.cause if isinstance(error.cause, Exception) else error
    ours = cause if isinstance(cause, FramefleetError) else None
    if ours and not is_ready:
        return Cause(reason=ours.problem, kind="refused", error=ours)  # ours say what must change
    reason, culprit = f"{type(cause).__name__}: {cause}", culprit_of(cause)
    if culprit.blame == "row" and is_ready:
        return Cause(reason=reason, kind="died")
    return Cause(reason=reason, kind="machine", suspects=() if culprit.blame == "host" else None, error=ours)
