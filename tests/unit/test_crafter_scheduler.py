"""VideoCrafterDDIMScheduler: every number of steps gives finite latents and timesteps that exist."""

from __future__ import annotations

import pytest
import torch

from framefleet.plugins.ports.crafter.scheduler import VideoCrafterDDIMScheduler

ZERO_SNR = {
    "prediction_type": "v_prediction",
    "timestep_spacing": "trailing",
    "rescale_betas_zero_snr": True,
    "latent_scale": 0.7,
    "dynamic_rescale": True,
}


@pytest.mark.parametrize("settings", [{"latent_scale": 0.7}, ZERO_SNR], ids=["uniform", "trailing"])
def test_every_number_of_steps_gives_finite_latents(settings: dict[str, object]) -> None:
    scheduler = VideoCrafterDDIMScheduler(**settings)
    x = torch.ones(1)
    # Those at which the originals fail (3, 9, ...), render NaN (7, 11, ...) or take one step too many (61).
    failing = (3, 9, 27, 36, 37, 101, 7, 11, 14, 15, 20, 25, 33, 34, 35, 38, 39, 61, 62, 63, 64)
    for steps in (1, 2, *failing, 333, 999, 1000):
        scheduler.set_timesteps(steps)
        timesteps = scheduler.timesteps.tolist()
        assert timesteps == sorted(set(timesteps), reverse=True)
        assert timesteps[0] <= 999
        assert timesteps[-1] >= 0
        for t in (timesteps[0], timesteps[-1]):
            assert scheduler.step(x, t, x, eta=1.0, variance_noise=x).prev_sample.isfinite().all()


def test_uniform_timesteps_leave_out_the_one_past_the_end() -> None:
    scheduler = VideoCrafterDDIMScheduler()
    scheduler.set_timesteps(3)
    assert scheduler.timesteps.tolist() == [667, 334, 1]
    for asked, taken in ((30, 31), (36, 37), (37, 37), (100, 100), (501, 999), (1000, 999)):
        scheduler.set_timesteps(asked)
        assert len(scheduler.timesteps) == taken


def test_trailing_timesteps_are_as_many_as_asked_for() -> None:
    scheduler = VideoCrafterDDIMScheduler(**ZERO_SNR)
    for steps in (*range(1, 101), 333, 500, 999, 1000):
        scheduler.set_timesteps(steps)
        assert len(scheduler.timesteps) == steps
    for steps in (0, 1001):
        with pytest.raises(ValueError, match="use 1 to 1000"):
            scheduler.set_timesteps(steps)


def test_noise_comes_from_the_rows_own_generator() -> None:
    scheduler = VideoCrafterDDIMScheduler()
    scheduler.set_timesteps(5)
    x = torch.zeros(2, 4, 1, 2, 2)
    generators = [torch.Generator().manual_seed(seed) for seed in (1, 2)]
    both = scheduler.step(x, 801, x, eta=1.0, generator=generators).prev_sample
    for row, seed in enumerate((1, 2)):
        own = torch.Generator().manual_seed(seed)
        alone = scheduler.step(x[:1], 801, x[:1], eta=1.0, generator=own).prev_sample
        assert torch.equal(alone[0], both[row])
