"""The central promise of every pipeline: a shuffled table, the frames of plain diffusers calls.

Without Ray; on a fleet by `tests/cluster/test_exactness.py`.
"""

from __future__ import annotations

from pathlib import Path
from statistics import mean

import pytest

from tests.here import render_here
from tests.jobs import records_of
from tests.mixed import CHOICES, DTYPES, MANY, mixed_job, mixed_table, plain_digests

# Their prompts come once for each frame, which rows that differ in them cannot share.
ONE_BY_ONE = {"animatediff"}


@pytest.mark.parametrize("dtype", list(DTYPES))
@pytest.mark.parametrize("name", [name for name in CHOICES if name not in MANY])
def test_mixed_rows_have_the_frames_of_plain_diffusers_calls(name: str, dtype: str, tmp_path: Path) -> None:
    rows = mixed_table(name, tmp_path)
    output, row_ids = render_here(mixed_job(name, dtype, rows, tmp_path), is_mixed=True)
    assert len(row_ids) == len(rows)
    records = records_of(output)
    assert (mean(record["batch_size"] for record in records) > 1.2) == (name not in ONE_BY_ONE)
    found = {record["seed"]: record["frames_sha256"] for record in records}
    seeds = [row["seed"] for row in rows]
    assert found == dict(zip(seeds, plain_digests(name, DTYPES[dtype], rows, tmp_path), strict=True))
