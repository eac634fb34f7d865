"""framefleet itself, as a user calls it: table, model and output in, clips and records out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import framefleet
from tools.benchmarks.table import MAX_ROWS


def render_fleet(
    table: Path,
    model: Path,
    output: Path,
    *,
    workers: int,
    mode: Literal["exact", "fast"],
    on_progress: Callable[[framefleet.Progress], None] | None = None,
) -> framefleet.Summary:
    """Render on a Ray that is started for it; records go to output/records."""
    summary = framefleet.render(
        {
            "table": str(table),
            "model": str(model),
            "output": str(output),
            "batching": {"mode": mode, "max_rows": MAX_ROWS},
            "audit": {"every": 0},  # of 64 rows the first ones would be a large share: see audit.py
            "fleet": {"workers": workers},
        },
        on_progress=on_progress,
    )
    assert not summary.failed, f"{summary.failed} rows failed; see {output}/failures"
    return summary
