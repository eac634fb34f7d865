"""Guidance schedules in real pipelines: bit-equal to plain diffusers, whatever company a row has."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch

from framefleet import Clip, Model, Request
from framefleet.pipeline.outputs.frames.frames import Frames, to_frames
from framefleet.pipeline.recipes.catalog import BUILT_IN
from framefleet.pipeline.recipes.guidance import open_guidance
from tests.long import long_but
from tests.tiny import SMALLEST
from tests.unaudited import loaded, unaudited

NUM_STEPS = 5
SCHEDULES = ("linear(6, 2)", "cosine(2, 5.3)", "oscillating(7, 1)", "interval(4, 0.2, 0.8)")
VALUES = [5.3 + (2 - 5.3) * (1 + math.cos(math.pi * (i / (NUM_STEPS - 1)))) / 2 for i in range(NUM_STEPS)]
NAMES = ("wan", "wan_moe", "cogvideox", "sd", "ltx", "flux")


def _request(name: str, seed: int, guidance: float | str, **more: Any) -> Request:
    arguments = SMALLEST[name] | {"prompt": "a red ball", "num_inference_steps": NUM_STEPS}
    if name == "flux":  # its `guidance_scale` is an input of the network
        arguments |= {"true_cfg_scale": guidance, "negative_prompt": "blurry", "height": 32, "width": 32}
    else:
        arguments |= {"guidance_scale": guidance}
    return Request(arguments=arguments | more, seed=seed)


def _alone(model: Model, row: Request) -> Frames:
    return to_frames(BUILT_IN[row.recipe].render(copy.copy(model.pipe), row))


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("name", long_but(NAMES, "wan", "sd", "flux"))
def test_rows_of_schedules_and_numbers_share_forwards_and_keep_their_bits(name: str, dtype: str) -> None:
    model = loaded(name, dtype)
    rows = [_request(name, seed, guidance) for seed, guidance in enumerate((5.3, *SCHEDULES))]
    by_seed = {clip.request.seed: clip for clip in unaudited(model).render(rows) if isinstance(clip, Clip)}
    clips = [by_seed[row.seed] for row in rows]
    for clip, row in zip(clips, rows, strict=True):
        assert np.array_equal(clip.frames, _alone(model, row))
    assert max(clip.batch_size for clip in clips) > 1
    argument = "true_cfg_scale" if name == "flux" else "guidance_scale"
    assert clips[1].request.arguments[argument] == "linear(6.0, 2.0)"  # the one spelling of it
    same = _alone(model, _request(name, 0, "linear(5.3, 5.3)"))  # a schedule between equal numbers
    assert np.array_equal(clips[0].frames, same) and not np.array_equal(same, clips[1].frames)


@pytest.mark.parametrize(("name", "dtype"), [("cogvideox", "fp32"), ("sd", "bf16"), ("ltx", "fp32")])
def test_a_schedule_renders_what_diffusers_own_way_to_change_the_scale_does(name: str, dtype: str) -> None:
    model, row = loaded(name, dtype), _request(name, 3, "cosine(2, 5.3)")

    def set_next(pipe: Any, step: int, timestep: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
        pipe._guidance_scale = VALUES[step + 1] if step + 1 < NUM_STEPS else None
        return kwargs

    given = {**row.arguments, "guidance_scale": VALUES[0], "callback_on_step_end": set_next}
    plain = copy.copy(model.pipe)(**given, generator=row.generator(), output_type="np")
    assert np.array_equal(to_frames(plain), _alone(model, row))


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_a_schedule_renders_what_a_loop_by_hand_does(dtype: str) -> None:
    row, pipe = _request("wan", 3, "cosine(2, 5.3)"), loaded("wan", dtype).pipe
    given = {**open_guidance(row.arguments), "generator": row.generator(), "output_type": "latent"}
    found = copy.copy(pipe)(**given).frames
    with torch.no_grad():
        embeds = [
            e.to(pipe.transformer.dtype) for e in pipe.encode_prompt("a red ball", max_sequence_length=32)
        ]
        pipe.scheduler.set_timesteps(NUM_STEPS)
        latents = torch.randn((1, 4, 2, 2, 2), generator=row.generator())  # 5 frames of 16 x 16
        for step, timestep in enumerate(pipe.scheduler.timesteps):
            noise, empty = (
                pipe.transformer(
                    latents.to(pipe.transformer.dtype), timestep.expand(1), embed, return_dict=False
                )[0]
                for embed in embeds
            )
            latents = pipe.scheduler.step(empty + VALUES[step] * (noise - empty), timestep, latents)[0]
    assert torch.equal(found, latents)
