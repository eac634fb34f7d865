"""Where rows may round differently they share all that they call, and are still the rows asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from framefleet import Batching, Clip, Renderer, Request, load_model
from framefleet.pipeline.hooks.intercept import intercept
from tests.tiny import SMALLEST, tiny

PROMPTS = ("a red ball", "two foxes at night", "an old tram", "a kite by the sea")


@pytest.mark.parametrize("name", ["ltx", "sd", "flux"])
def test_rows_in_company_differ_from_those_alone_by_rounding(name: str) -> None:
    model = load_model(tiny(name), dtype="fp32")
    texts = [SMALLEST[name] | {"prompt": prompt} for prompt in PROMPTS]
    requests = [Request(arguments=arguments, seed=seed) for seed, arguments in enumerate(texts)]
    alone = _clips(Renderer(model, Batching(max_rows=1)), requests)
    fast = Renderer(model, Batching(mode="fast", min_gain=0, max_rows=4))
    decoded: list[int] = []

    def note(name: str, decode: Callable[..., Any], latents: Any, *args: Any, **kwargs: Any) -> Any:
        decoded.append(len(latents))
        return decode(latents, *args, **kwargs)

    for clips in (_clips(fast, requests), _clips(fast, requests)):  # in the first, sizes are tried
        for seed, clip in clips.items():
            away = np.abs(np.asarray(clip.frames, np.int16) - np.asarray(alone[seed].frames, np.int16))
            assert away.mean() < 1
    with intercept({"vae": model.pipe.vae}, note, method="decode"):
        _clips(fast, requests)
    assert max(decoded) > 1


def _clips(renderer: Renderer, requests: list[Request]) -> dict[int, Clip]:
    outcomes = list(renderer.render(requests))
    clips = [outcome for outcome in outcomes if isinstance(outcome, Clip)]
    assert len(clips) == len(requests), outcomes
    return {clip.request.seed: clip for clip in clips}
