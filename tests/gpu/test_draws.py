"""On a GPU rows in company draw what they draw alone, from its global generator and from their own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from framefleet import Audit, Batching, Clip, Renderer, Request, load_model
from framefleet.pipeline.hooks.global_draws import drawing_from
from framefleet.pipeline.outputs.frames.frames import frames_sha256, to_frames
from framefleet.pipeline.recipes.recipe import Recipe
from tests.tiny import SMALLEST, tiny
from tests.turns import drawn_in_turns

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

DEVICE = "cuda"


def drawn() -> list[float]:
    return [torch.rand((), device=DEVICE).item(), torch.rand(()).item()]


def drawing(pipe: Any, request: Request) -> Any:
    """Noise from a generator on the GPU, and more from its global one after each step."""

    def add_noise(_: Any, __: int, ___: Any, held: dict[str, Any]) -> dict[str, Any]:
        latents = held["latents"]
        return {"latents": latents + 0.1 * torch.randn(latents.shape, device=DEVICE).to(latents.dtype)}

    generator = torch.Generator(DEVICE).manual_seed(request.seed)
    return pipe(
        **request.arguments, generator=generator, callback_on_step_end=add_noise, output_type="np"
    ).frames


def test_turns_draw_on_where_they_left_off() -> None:
    torch.rand((), device=DEVICE)  # the generators of GPUs are there once one is in use
    expected = []
    for seed in range(3):
        torch.manual_seed(seed)
        expected.append([drawn() for _ in range(3)])
    assert drawn_in_turns(drawn) == expected


def test_drawing_leaves_the_generators_as_they_were() -> None:
    torch.manual_seed(1)
    expected = drawn()
    torch.manual_seed(1)
    with drawing_from(7):
        drawn()
    assert drawn() == expected


def test_rows_in_company_have_the_noise_of_plain_calls() -> None:
    model = load_model(tiny("wan"), dtype="fp32", device=DEVICE)
    arguments = {**SMALLEST["wan"], "prompt": "a red ball"}
    rows = [
        Request(arguments=arguments | {"num_inference_steps": 3 + i % 2}, seed=i, recipe="drawing")
        for i in range(4)
    ]
    recipes = {"drawing": Recipe(name="drawing", function=drawing, digest="")}
    renderer = Renderer(model, Batching(min_gain=0), recipes=recipes, audit=Audit(every=1))
    clips = [clip for clip in renderer.render(rows) if isinstance(clip, Clip)]
    expected = {}
    for row in rows:
        torch.manual_seed(row.seed)
        np.random.seed(row.seed)
        expected[row.seed] = frames_sha256(to_frames(drawing(model.pipe, row)))
    assert {clip.request.seed: clip.frames_sha256 for clip in clips} == expected
    assert np.mean([clip.batch_size for clip in clips]) > 1
    assert [audited.verdict for audited in renderer.take_audits()] == ["equal"] * 4
