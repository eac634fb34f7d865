"""A denoiser that learned its target perfectly gives the scheduler back what was noised."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import (
    CogVideoXDDIMScheduler,
    DDIMScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
)

from framefleet.pipeline.errors import ModelError
from framefleet.plugins.ports.crafter.scheduler import VideoCrafterDDIMScheduler
from framefleet.plugins.train.denoiser.objective import FlowMatching, objective_of

COGVIDEOX: dict[str, Any] = {"rescale_betas_zero_snr": True, "clip_sample": False}
DIFFUSION = {
    "epsilon": DDIMScheduler(clip_sample=False),
    "sample": DDIMScheduler(clip_sample=False, prediction_type="sample"),
    "cogvideox": CogVideoXDDIMScheduler(prediction_type="v_prediction", snr_shift_scale=1.0, **COGVIDEOX),
    "cogvideox_2b": CogVideoXDDIMScheduler(prediction_type="v_prediction", snr_shift_scale=3.0, **COGVIDEOX),
    "videocrafter": VideoCrafterDDIMScheduler(latent_scale=0.7),
    "dynamicrafter": VideoCrafterDDIMScheduler(
        latent_scale=0.7, prediction_type="v_prediction", rescale_betas_zero_snr=True
    ),
}
CLEAN = torch.linspace(-1, 1, 8).reshape(2, 1, 4)
NOISE = torch.linspace(2, -2, 8).reshape(2, 1, 4)


@pytest.mark.parametrize("name", DIFFUSION)
def test_the_scheduler_finds_the_clean_latents_from_the_target(name: str) -> None:
    scheduler = DIFFUSION[name]
    scheduler.set_timesteps(1000)
    objective = objective_of(scheduler, drawing="uniform")
    for time in (1, 300, 900):
        noised = objective.noised(CLEAN, NOISE, torch.tensor([time, time]))
        found = scheduler.step(noised.target, time, noised.sample, return_dict=False)[1]
        torch.testing.assert_close(found, CLEAN, atol=2e-3, rtol=1e-3)


def test_a_scheduler_of_sigmas_scales_to_the_same_input() -> None:
    scheduler = EulerDiscreteScheduler(timestep_spacing="leading", steps_offset=1)
    scheduler.set_timesteps(1000)
    time = scheduler.timesteps[500]
    noised = objective_of(scheduler, drawing="uniform").noised(CLEAN, NOISE, time.long().expand(2))
    own = scheduler.scale_model_input(scheduler.add_noise(CLEAN, NOISE, time.expand(2)), time)
    torch.testing.assert_close(noised.sample, own, atol=1e-5, rtol=1e-5)
    assert noised.target is NOISE


def flow(shift: float) -> list[Any]:
    return [
        FlowMatchEulerDiscreteScheduler(shift=shift),
        UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift),
    ]


@pytest.mark.parametrize("scheduler", flow(5.0))
def test_noise_levels_are_shifted_as_the_scheduler_shifts_them(scheduler: Any) -> None:
    scheduler.set_timesteps(1000)
    objective = objective_of(scheduler, drawing="uniform")
    draw, again = (torch.Generator().manual_seed(0) for _ in range(2))
    for _ in range(50):
        share = float(torch.rand((), generator=again))
        level = float(objective.draw(draw))
        assert abs(level - 5 * share / (1 + 4 * share)) < 0.02


def test_a_flow_goes_from_noise_to_data() -> None:
    scheduler = flow(1.0)[0]
    scheduler.set_timesteps(1000)
    levels = torch.tensor([0.25, 1.0])
    noised = objective_of(scheduler, drawing="uniform").noised(CLEAN, NOISE, levels)
    assert torch.equal(noised.timesteps, torch.tensor([250.0, 1000.0]))
    assert torch.equal(noised.sample[1], NOISE[1])
    torch.testing.assert_close(noised.sample - levels.view(2, 1, 1) * noised.target, CLEAN)


def test_logit_normal_levels_are_of_the_middle() -> None:
    levels = torch.linspace(1, 0, 1001)
    middling = []
    for drawing in ("uniform", "logit_normal"):
        objective = FlowMatching(levels=levels, num_timesteps=1000, drawing=drawing)
        draw = torch.Generator().manual_seed(0)
        drawn = torch.stack([objective.draw(draw) for _ in range(500)])
        middling.append(float(((drawn > 0.25) & (drawn < 0.75)).float().mean()))
    assert middling[0] < 0.55 and middling[1] > 0.67


def test_a_scheduler_that_is_not_known_is_refused() -> None:
    config = SimpleNamespace(prediction_type="score", get=lambda _: None)
    with pytest.raises(ModelError, match="prediction_type 'score'"):
        objective_of(SimpleNamespace(config=config), drawing="uniform")
