"""The shapes' untrained model: small, the same for equal seeds, and a pipeline that renders."""

from __future__ import annotations

import torch

from framefleet.plugins.demo.prepare import MAX_TOKENS
from tools.shapes.blank_model import untrained_pipeline


def test_equal_seeds_give_equal_weights_and_others_do_not() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, second, other = (untrained_pipeline(seed=seed).transformer.state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)
    assert torch.equal(torch.get_rng_state(), before)


def test_it_renders_the_clips_of_the_dataset() -> None:
    pipe = untrained_pipeline()
    frames = pipe(
        "a red ball",
        num_frames=9,
        height=64,
        width=64,
        num_inference_steps=1,
        guidance_scale=1.0,
        max_sequence_length=MAX_TOKENS,
    ).frames
    assert frames.shape == (1, 9, 64, 64, 3)
