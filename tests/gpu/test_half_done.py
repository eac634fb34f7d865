"""On a GPU what denoisers returned is copied beside what comes next, and rows go on from it bit for bit."""

from __future__ import annotations

import pytest
import torch

from framefleet import Batching, Clip, HalfDone, Renderer, Request, load_model
from tests.tiny import SMALLEST, tiny

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.mark.parametrize("num_steps", [1, 6, 9])
def test_rows_go_on_from_what_was_copied_from_the_gpu(num_steps: int) -> None:
    model = load_model(tiny("wan"), dtype="bf16", device="cuda")
    arguments = {**SMALLEST["wan"], "prompt": "a red ball"}
    rows = [Request(arguments=arguments | {"num_inference_steps": 5 + i % 2}, seed=i) for i in range(4)]
    clips = {clip.request.seed: clip for clip in Renderer(model, Batching(max_rows=1)).render(rows)}
    first, second = (Renderer(model, Batching(min_gain=0)) for _ in range(2))
    for row in rows:
        first.submit(row, f"{row.seed:032x}")
    for _ in range(num_steps):
        assert not first.step()
    for half in first.drain():
        assert isinstance(half, HalfDone) and half.checkpoint
        second.submit(half.request, half.row_id, half.checkpoint)
    while second.num_active:
        for clip in second.step():
            expected = clips[clip.request.seed]
            assert isinstance(clip, Clip) and isinstance(expected, Clip)
            assert clip.frames_sha256 == expected.frames_sha256
