"""Progress of a job, and what its audits say, in one line each."""

from __future__ import annotations

import math
import time

from framefleet.cluster.driver.progress import AuditFigures, Progress
from framefleet.jobs.show.watch import Awaited, Checked, ClipsProgress, Standing

VAGUE = 0.3  # of the rows: a bound above this says little, and reads as if these were wrong


def headline(standing: Standing) -> str:
    """Return all counts in one line."""
    match standing:
        case Awaited():
            return f"{standing.what} ({duration(time.monotonic() - standing.since)})"
        case Checked():
            return f"{standing.num_rows:,} rows checked"
        case ClipsProgress():
            return ", ".join(_of_clips(standing))
        case Progress():
            return ", ".join(_of_rows(standing))
        case _:
            return ", ".join(standing.parts())


def duration(seconds: float) -> str:
    """Return 75 seconds as 1:15, and 3,700 as 1:01:40."""
    minutes, rest = divmod(math.ceil(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _of_rows(progress: Progress) -> list[str]:
    parts = [f"{progress.done:,}/{progress.total:,} rows"]
    if progress.rows_per_s is not None:
        parts.append(f"{progress.rows_per_s:.2f} rows/s")
    if progress.eta_s is not None:
        parts.append(f"{duration(progress.eta_s)} left")
    if progress.mean_batch is not None:
        parts.append(f"mean batch {progress.mean_batch:.1f}")
    if progress.failed:
        parts.append(f"{progress.failed:,} failed")
    if progress.paused_since:
        parts.append(f"paused since {progress.paused_since}")
    elif not progress.workers:
        parts.append(f"{progress.waiting_for or 'workers are starting'} ({duration(progress.elapsed_s)})")
    elif not progress.done and progress.in_flight:
        parts.append(f"first clips under way ({duration(progress.elapsed_s)})")
    return parts


def _of_clips(progress: ClipsProgress) -> list[str]:
    parts = [f"{progress.done:,}/{progress.total:,} clips {progress.doing}"]
    if progress.bytes_per_s is not None:
        parts.append(f"{progress.bytes_per_s / 1e6:.1f} MB/s")
    elif progress.clips_per_s is not None:
        parts.append(f"{progress.clips_per_s:.1f} clips/s")
    if progress.eta_s is not None:
        parts.append(f"{duration(progress.eta_s)} left")
    return parts


def audit_line(audits: AuditFigures, num_rows: int) -> str:
    """Return how many rows were compared, and what that says of the others.

    num_rows: with a record, of which audits speak.
    """
    if not audits.num_equal and not audits.num_unaudited:
        return (
            "no audits were needed: each row was rendered by a plain call" if num_rows else "no rows to audit"
        )
    if not audits.num_equal:
        return f"none of {num_rows:,} rows has been rendered again to compare"
    line = f"{audits.num_equal:,} of {num_rows:,} rows were rendered again and compared: all equal"
    if audits.num_equal == 1:
        line = f"1 of {num_rows:,} rows was rendered again and compared: equal"
    line += f"; with 95 % confidence, {bound_text(audits.most_wrong, num_rows)}"
    if audits.most_wrong > VAGUE * num_rows:
        line += ", as few were compared (`audit.at_most` compares more)"
    num_never = audits.num_kinds - audits.num_kinds_compared
    if num_never > 0:
        line += f"; of {num_never:,} of {audits.num_kinds:,} kinds of rows none was compared"
    return line


def bound_text(most_wrong: int, num_rows: int) -> str:
    """Return how many rows differ at most."""
    share = most_wrong / num_rows if num_rows else 0.0
    return f"at most {most_wrong:,} of all rows ({share_text(share)}) differ"


def share_text(share: float) -> str:
    """Return a share in per cent, with two digits, rounded up: a bound stays one."""
    if share <= 0:
        return "0 %"
    digits = max(0, 1 - math.floor(math.log10(100 * share) + 1e-9))
    step = 10.0**-digits
    return f"{math.ceil(100 * share / step - 1e-9) * step:.{digits}f} %"
