"""The central promise: a row's frames are those of a plain diffusers call, whatever its company."""

from __future__ import annotations

from statistics import mean

import pytest

from framefleet import Batching, Clip, Renderer, load_model
from tests.mixed import DTYPES, NUM_ROWS, SCHEDULERS, mixed_table, plain_digests
from tests.tiny import tiny


@pytest.mark.parametrize("dtype", list(DTYPES))
@pytest.mark.parametrize("name", list(SCHEDULERS))
def test_a_mixed_table_renders_to_the_frames_of_plain_diffusers_calls(name: str, dtype: str) -> None:
    rows = mixed_table(name)
    renderer = Renderer(load_model(tiny(name), dtype=dtype), Batching(max_rows=8, min_gain=0))  # type: ignore[arg-type]
    clips = [outcome for outcome in renderer.render(rows) if isinstance(outcome, Clip)]
    assert mean(clip.batch_size for clip in clips) > 2
    found = {clip.request.seed: clip.frames_sha256 for clip in clips}
    expected = dict(zip((row.seed for row in rows), plain_digests(name, DTYPES[dtype], rows), strict=True))
    assert len(set(expected.values())) == NUM_ROWS
    assert found == expected
