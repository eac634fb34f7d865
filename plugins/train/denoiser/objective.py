"""From a pipeline's noise scheduler to what its denoiser learns: clean latents and noise in, a target out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Generator, Tensor

from framefleet.pipeline.errors import ModelError
from framefleet.pipeline.model.specs.schedulers import steps_flow

Drawing = Literal["uniform", "logit_normal"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Noised:
    """What the denoiser gets, (B, ...), at which timesteps (B) of its scheduler, and what it is to return."""

    sample: Tensor
    timesteps: Tensor
    target: Tensor


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FlowMatching:
    """Straight lines from noise to data (arXiv 2210.02747); the denoiser learns their velocity.

    levels: of noise, from 1 down, as the scheduler steps through them: its shift is in their spacing.
    """

    levels: Tensor
    num_timesteps: int
    drawing: Drawing

    def draw(self, generator: Generator) -> Tensor:
        """Return a level, 0-d."""
        if self.drawing == "logit_normal":
            share = torch.sigmoid(torch.randn((), generator=generator))
        else:
            share = torch.rand((), generator=generator)
        place = (1 - share) * (len(self.levels) - 1)
        before, after = self.levels[int(place.floor())], self.levels[int(place.ceil())]
        return torch.lerp(before, after, place - place.floor())

    def noised(self, clean: Tensor, noise: Tensor, levels: Tensor) -> Noised:
        level = _along(levels, clean)
        return Noised(
            sample=(1 - level) * clean + level * noise,
            timesteps=levels.to(clean.device) * self.num_timesteps,
            target=noise - clean,
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Diffusion:
    """Noise that keeps the variance; the denoiser learns the noise, the data or a velocity between them.

    alphas: share of the clean latents in the variance, by timestep (`alphas_cumprod`). scales: of clean
    latents, by timestep, where they shrink before noise is added (VideoCrafter, DynamiCrafter).
    """

    alphas: Tensor
    scales: Tensor | None
    prediction: Literal["epsilon", "v_prediction", "sample"]

    def draw(self, generator: Generator) -> Tensor:
        """Return a timestep, 0-d."""
        return torch.randint(len(self.alphas), (), generator=generator)

    def noised(self, clean: Tensor, noise: Tensor, timesteps: Tensor) -> Noised:
        alpha = _along(self.alphas[timesteps], clean)
        if self.scales is not None:
            clean = clean * _along(self.scales[timesteps], clean)
        targets = {
            "epsilon": noise,
            "sample": clean,
            "v_prediction": alpha**0.5 * noise - (1 - alpha) ** 0.5 * clean,
        }
        return Noised(
            sample=alpha**0.5 * clean + (1 - alpha) ** 0.5 * noise,
            timesteps=timesteps.to(clean.device),
            target=targets[self.prediction],
        )


Objective = FlowMatching | Diffusion


def objective_of(scheduler: Any, *, drawing: Drawing, share: tuple[float, float] = (0.0, 1.0)) -> Objective:
    """Return what the denoiser of this scheduler learns.

    scheduler: with steps set; of a flow, all that there are. share: of the noise levels, low and high, for
    one of several denoisers. Raises ModelError for a scheduler that is not known.
    """
    config, name = scheduler.config, type(scheduler).__name__
    if steps_flow(name, config):
        levels = scheduler.sigmas.float().cpu()
        levels = levels[(levels >= share[0]) & (levels <= share[1])]
        return FlowMatching(levels=levels, num_timesteps=config.num_train_timesteps, drawing=drawing)
    prediction = getattr(config, "prediction_type", None)
    if prediction not in ("epsilon", "v_prediction", "sample") or not hasattr(scheduler, "alphas_cumprod"):
        raise ModelError(
            f"it is not known what a model of {name} with prediction_type {prediction!r} learns",
            "give the pipeline a scheduler of flow matching, or one that predicts epsilon, sample or v",
        )
    scales = getattr(scheduler, "latent_scales", None)
    return Diffusion(alphas=scheduler.alphas_cumprod.cpu(), scales=scales, prediction=prediction)


def _along(values: Tensor, latents: Tensor) -> Tensor:
    """Return one value for each row of latents (B, ...)."""
    return values.to(latents.device, latents.dtype).view(-1, *[1] * (latents.dim() - 1))
