"""Autoencoders trained on clips: the loss falls, gradients reach all weights, the latents are measured."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from framefleet import load_model
from framefleet.plugins.train.autoencoder import OBJECT_WEIGHT, AutoencoderTask, _weights
from framefleet.plugins.train.task import Prepared
from tests.tiny import tiny
from tests.training_jobs import descend


def rows(num_frames: int, size: int, count: int = 2) -> list[Prepared]:
    """Return squares of one colour on grounds of another, that move."""
    made = []
    for number in range(count):
        random = np.random.default_rng(number)
        ground, colour = random.integers(0, 256, (2, 3), dtype=np.uint8)
        frames = np.empty((num_frames, size, size, 3), np.uint8)
        frames[:] = ground
        for time in range(num_frames):
            frames[time, size // 4 : size // 2, time : time + size // 4] = colour
        made.append({"frames": torch.from_numpy(frames)})
    return made


def task_of(name: str) -> tuple[AutoencoderTask, Any]:
    pipe = load_model(tiny(name), dtype="fp32").pipe
    pipe.vae.requires_grad_(True).train()
    return AutoencoderTask(pipe), pipe.vae


@pytest.mark.parametrize(
    ("name", "num_frames", "size"),
    [("wan_ti2v", 5, 32), ("cogvideox", 9, 16), ("ltx", 9, 32), ("animatediff", 3, 16)],
)
def test_the_loss_falls_and_every_weight_has_a_gradient(name: str, num_frames: int, size: int) -> None:
    task, vae = task_of(name)
    first, *_, last = descend(task, rows(num_frames, size), vae.parameters(), steps=8, rate=2e-3)
    assert last < 0.9 * first
    assert all(weight.grad is not None for weight in vae.parameters())


def test_the_loss_is_a_function_of_batch_weights_and_generator() -> None:
    task, _ = task_of("wan")
    batch = rows(5, 16)
    losses = [task.loss(batch, torch.Generator().manual_seed(seed)).item() for seed in (1, 1, 2)]
    assert losses[0] == losses[1] != losses[2]


def test_pixels_beyond_white_still_have_a_gradient() -> None:
    """Where diffusers' own decode clamps."""
    task, vae = task_of("wan")
    with torch.no_grad():
        vae.decoder.conv_out.bias.fill_(3.0)
    task.loss(rows(5, 16), torch.Generator().manual_seed(0)).backward()
    assert vae.decoder.conv_out.bias.grad.abs().min() > 0


@pytest.mark.parametrize("name", ["wan", "sd", "ltx", "sd3"])
def test_the_spread_of_latents_is_noted_where_pipelines_normalise_by_it(name: str) -> None:
    task, vae = task_of(name)
    size, num_frames = (32, 9) if name == "ltx" else (16, 1 if name[0] == "s" else 5)
    batch = rows(num_frames, size)
    task.finish(batch)
    video = torch.stack([row["frames"] for row in batch]).permute(0, 4, 1, 2, 3) / 127.5 - 1
    with torch.no_grad():
        latents = vae.encode(video[:, :, 0] if num_frames == 1 else video).latent_dist.mean
    mean, std = (
        latents.mean((0, *range(2, latents.ndim))),
        latents.std((0, *range(2, latents.ndim)), correction=0),
    )
    match name:
        case "wan":
            torch.testing.assert_close(torch.tensor(vae.config.latents_mean), mean)
            torch.testing.assert_close(torch.tensor(vae.config.latents_std), std)
        case "ltx":
            torch.testing.assert_close(vae.latents_mean, mean)
            torch.testing.assert_close(vae.latents_std, std)
        case "sd":
            assert vae.config.scaling_factor == pytest.approx(1 / latents.std(correction=0).item(), rel=0.2)
        case "sd3":
            assert vae.config.shift_factor == pytest.approx(latents.mean().item(), rel=1e-3)
            assert vae.config.scaling_factor == pytest.approx(1 / latents.std(correction=0).item(), rel=1e-3)


def test_an_encoder_that_was_not_trained_keeps_its_spread() -> None:
    task, vae = task_of("wan")
    vae.encoder.requires_grad_(False)
    task.finish(rows(5, 16))
    assert vae.config.latents_std == [1.0] * vae.config.z_dim


def test_pixels_near_what_differs_from_the_background_count_more() -> None:
    video = torch.zeros(1, 3, 2, 32, 32)
    video[0, 1, 1, 10, 20] = 0.5
    weights = _weights(video)
    assert weights.shape == (1, 1, 2, 32, 32) and (weights[:, :, 0] == 1).all()
    assert (weights[0, 0, 1, 8:13, 18:23] == OBJECT_WEIGHT).all()
    assert weights.sum() == 2 * 32 * 32 + 25 * (OBJECT_WEIGHT - 1)
