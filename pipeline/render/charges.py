"""From a model's clock to what of its time each row took: shares that add up to all that it was busy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from framefleet.pipeline.outputs.clips import Clip, Outcome
from framefleet.pipeline.render.fused.batcher import RowTask
from framefleet.pipeline.render.idle_time import Idle
from framefleet.pipeline.render.row_queue import RenderRow


class Charges:
    """Charges rows with a model's busy time, as it passes."""

    def __init__(self, idle: Idle) -> None:
        self._idle = idle
        self._charged_s = 0.0  # all rows, since the clock runs
        self._rows: Mapping[RowTask, RenderRow] = {}

    def work_on(self, rows: Mapping[RowTask, RenderRow]) -> None:
        """Charge these rows from now on."""
        self._rows = dict(rows)

    def charge(self) -> None:
        """Share out what the model was busy since the last call.

        As the rows' calls took, as far as seen from here; what no call tells of, as an audit, in equal parts.
        On a GPU some time is known later than it passed, and shared then.
        """
        parts = {row: _worked_since(task, row) for task, row in self._rows.items()}
        busy_s = self._idle.busy_s - self._charged_s
        if not parts or busy_s <= 0:
            return
        self._charged_s += busy_s
        total = sum(parts.values())
        for row, part in parts.items():
            row.compute_s += busy_s * (part / total if total else 1 / len(parts))

    def told(self, outcome: Outcome) -> Outcome:
        """Return a clip of these rows with all that its row took until now."""
        if not isinstance(outcome, Clip):
            return outcome
        return replace(outcome, seconds={**outcome.seconds, "compute_s": self._took_s(outcome)})

    def again(self, clip: Clip) -> RenderRow:
        """Return the row of a clip as one that is rendered again; what it took stays with it."""
        return RenderRow(clip.row_id, clip.request, compute_s=self._took_s(clip))

    def _took_s(self, clip: Clip) -> float:
        mine = (clip.row_id, clip.started_at)  # a row_id may be there twice
        row = next(row for row in self._rows.values() if (row.row_id, row.started_at) == mine)
        return row.compute_s + row.earlier.get("compute_s", 0.0)


def _worked_since(task: RowTask, row: RenderRow) -> float:
    """Return the seconds that a row's calls took since it was asked last."""
    before = row.worked_s
    row.worked_s = task.forward_s + sum(task.seconds.values()) + sum(row.seconds.values())
    return max(row.worked_s - before, 0.0)
