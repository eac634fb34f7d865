"""No row waits and a worker is late: an idle one renders its row as well, and the first to finish counts."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import framefleet
from tests.jobs import job_values, prompt_rows, records_of, write_table

NUM_STEPS = 20
LATE = 5  # the row that is; the others take a tenth of a second


def render_late(folder: Path, address: str, **late: Any) -> tuple[list[dict[str, Any]], list[int]]:
    """Return the records, and the processes that took the late row, each with its forwards of it."""
    rows = prompt_rows(8)
    for row in rows:
        row["num_inference_steps"], row["guidance_scale"] = NUM_STEPS, 1.0
    rows[LATE]["prompt"] = "a late row"
    values = job_values(
        write_table(folder / "t.parquet", rows),
        folder / "out",
        address=address,
        recipe="tests.faults:late",
        batching={"max_rows": 1},
        audit={"every": 0},
    )
    values["defaults"] |= {"forwards": str(folder / "forwards"), **late}
    summary = framefleet.render(values)
    assert (summary.done, summary.failed) == (len(rows), 0)
    lines = (folder / "forwards").read_text().split()
    return records_of(folder / "out"), list(Counter(lines).values())


def test_a_copy_of_a_late_row_wins_and_the_late_worker_leaves_it(tmp_path: Path, ray_cluster: str) -> None:
    records, (of_first, of_copy) = render_late(tmp_path, ray_cluster, first_s=6.0, then_s=0.05)
    assert len(records) == 8 and len({record["row_id"] for record in records}) == 8
    assert (of_first < NUM_STEPS, of_copy) == (True, NUM_STEPS)
