"""Cosmos: what its guardrail refuses and changes, and what its rows start from."""

from __future__ import annotations

import diffusers
import numpy as np
import pytest
from cosmos_guardrail import BLOCKED_HEIGHT, BRIGHT, FACE

import framefleet
from framefleet.pipeline.errors import TableError
from framefleet.pipeline.model.guardrail import CHANGED, Blocked
from tests.tiny import SMALLEST, smallest_call, tiny

PROMPT = {"prompt": "a red ball"}


def test_what_the_guardrail_refuses_fails_and_what_it_changes_is_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    call = SMALLEST["cosmos_t2w"] | PROMPT
    rows = [call, call, call, call | {"prompt": "a forbidden ball"}, call | {"height": BLOCKED_HEIGHT}]
    renderer = framefleet.Renderer(
        framefleet.load_model(tiny("cosmos_t2w")), framefleet.Batching(max_rows=2, min_gain=0)
    )
    requests = (framefleet.Request(arguments=row, seed=seed) for seed, row in enumerate(rows))
    with caplog.at_level("INFO"):
        outcomes = list(renderer.render(requests))
    errors = {one.request.seed: one.error for one in outcomes if isinstance(one, framefleet.Failure)}
    assert "refuses the prompt" in str(errors[3]) and "refuses the frames" in str(errors[4])
    assert len(errors) == 2 and all(isinstance(error, Blocked) for error in errors.values())
    assert "tried again" not in caplog.text
    pipe = diffusers.CosmosTextToWorldPipeline.from_pretrained(tiny("cosmos_t2w"))
    counts = []
    for clip in (one for one in outcomes if isinstance(one, framefleet.Clip)):
        frames = pipe(**call, generator=clip.request.generator(), output_type="np").frames[0]
        expected = (frames * 255).round().astype("uint8")
        assert np.array_equal(clip.frames, expected)
        changed = int((expected[:, :FACE, :FACE] == BRIGHT).all(axis=(1, 2, 3)).sum())
        assert clip.extras.values.get(CHANGED, 0) == changed
        counts.append(changed)
    assert any(counts)


def test_a_row_of_cosmos_starts_from_an_image_or_a_video() -> None:
    model = framefleet.load_model(tiny("cosmos_v2w"))
    call = {name: value for name, value in smallest_call("cosmos_v2w").items() if name != "video"}
    with pytest.raises(TableError, match="starts from an image or a video"):
        next(framefleet.Renderer(model).render([framefleet.Request(arguments=call)]))
