"""From a model's clock to what of its time each row took: shares that add up to all that it was busy."""

from __future__ import annotations

from collections.abc import Mapping

from framefleet.pipeline.render.fused.batcher import RowTask
from framefleet.pipeline.render.idle import Idle
from framefleet.pipeline.render.row_queue import RenderRow


class Shares:
    """Charges rows with a model's busy time, as it passes."""

    def __init__(self, idle: Idle) -> None:
        self._idle = idle
        self._charged_s = 0.0  # all rows, since the clock runs

    def charge(self, rows: Mapping[RowTask, RenderRow]) -> None:
        """Share out what the model was busy since the last call among the rows that it worked on.

        As their calls took, as far as seen from here; what no call tells of, as an audit, in equal parts. On
        a GPU some time is told later than it passed, and shared then.
        """
        parts = {row: _worked_since(task, row) for task, row in rows.items()}
        busy_s = self._idle.busy_s - self._charged_s
        if not rows or busy_s <= 0:
            return
        self._charged_s += busy_s
        total = sum(parts.values())
        for row, part in parts.items():
            row.compute_s += busy_s * (part / total if total else 1 / len(parts))


def _worked_since(task: RowTask, row: RenderRow) -> float:
    """Return the seconds that a row's calls took since it was asked last."""
    before = row.worked_s
    row.worked_s = task.forward_s + sum(task.seconds.values()) + sum(row.seconds.values())
    return max(row.worked_s - before, 0.0)
