"""From the model's time so far to whether one more row may be audited now. Plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from framefleet.pipeline.metrics import BUSY, WORKER_SECONDS

MOST_SMALL = 1000  # all of these are in memory, to choose one


@dataclass(frozen=True, slots=True, kw_only=True)
class ComputeTime:
    """Seconds in which models computed, of all workers and runs of a job."""

    rows_s: float = 0.0  # all but audits
    audits_s: float = 0.0

    @classmethod
    def of(cls, figures: Mapping[str, float]) -> ComputeTime:
        """Return the sums of workers' figures, see `pipeline/metrics.py`."""
        seconds = {cause: WORKER_SECONDS.of(figures, cause) for cause in BUSY}
        audits_s = seconds.pop("audit")
        return cls(rows_s=sum(seconds.values()), audits_s=audits_s)

    def __add__(self, other: ComputeTime) -> ComputeTime:
        return ComputeTime(rows_s=self.rows_s + other.rows_s, audits_s=self.audits_s + other.audits_s)

    def __sub__(self, other: ComputeTime) -> ComputeTime:
        return ComputeTime(rows_s=self.rows_s - other.rows_s, audits_s=self.audits_s - other.audits_s)


def is_affordable(
    share: float, time: ComputeTime, *, num_open: int = 0, longest_s: float | None = None
) -> bool:
    """Tell whether one more row may be audited: audits so far, and those ordered, stay within this share.

    So all audits together take at most the share, and one row. num_open: audits that were ordered and have
    not ended; each counts as the longest so far, and while there is none, the first is waited for.
    """
    if num_open and longest_s is None:
        return False
    return time.audits_s + num_open * (longest_s or 0.0) <= share * time.rows_s


def is_small(share: float, num_rows: int) -> bool:
    """Tell whether the share of a whole job is less than one row, which is all that it then gets."""
    return share * num_rows < 1 and num_rows <= MOST_SMALL
