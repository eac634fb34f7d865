"""Models that do not pad their prompts: rows share forwards as far as they keep the bits of plain calls."""

from __future__ import annotations

from statistics import mean

import pytest

from framefleet import Batching, Clip, load_model
from tests.tiny import tiny
from tests.unaudited import unaudited
from tests.unequal_prompts import plain_digest, requests_of, unequal_rows


@pytest.mark.parametrize(
    ("name", "num_rows", "max_rows", "least"),
    [
        ("z_image", 64, 4, 1.5),
        pytest.param("qwen_image", 24, 4, 1.5, marks=pytest.mark.long),  # of a fleet in tests/cluster
        *(pytest.param(name, 64, 8, 2.0, marks=pytest.mark.long) for name in ("z_image", "qwen_image")),
        pytest.param("z_image", 64, 16, 1.5, marks=pytest.mark.long),
    ],
)  # each size has to be proven: with twice as many, as many rows are a short table
def test_rows_of_unequal_prompts_share_forwards_and_keep_the_bits_of_plain_calls(
    name: str, num_rows: int, max_rows: int, least: float
) -> None:
    model = load_model(tiny(name), dtype="fp32")
    model.pipe.set_progress_bar_config(disable=True)
    renderer = unaudited(model, Batching(max_rows=max_rows, min_gain=0))
    clips = [
        clip for clip in renderer.render(requests_of(unequal_rows(name, num_rows))) if isinstance(clip, Clip)
    ]
    assert len(clips) == num_rows
    assert mean(clip.batch_size for clip in clips) > least
    for clip in clips[::4]:
        assert clip.frames_sha256 == plain_digest(model, clip.request)
    # Z-Image's own network takes prompts of other lengths; of Qwen-Image, who hands out rows has to know.
    assert (renderer.prompt_lengths is not None) == (name == "qwen_image")
