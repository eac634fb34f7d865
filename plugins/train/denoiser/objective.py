"""What a denoiser learns: turns frames into clean latents, and these plus noise into a sample and its target.

Latents are normalised and laid out as the pipeline's denoiser expects. They are the mean of the encoder's
distribution, not a sample of it (docs/why/training.md).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Generator, Tensor

from framefleet.api.clips import Frames
from framefleet.api.errors import ModelError
from framefleet.api.families import LatentLayout
from framefleet.pipeline.model.families.registry import FAMILIES, family_of
from framefleet.pipeline.model.specs.schedulers import steps_flow
from framefleet.plugins.latent_tokens import pack_latents

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


def latents_of(pipe: Any, frames: Frames) -> Tensor:
    """Return fp32 latents with a batch dimension of one. frames: uint8 RGB (T, H, W, 3)."""
    name, vae = type(pipe).__name__, pipe.vae
    encode = _LAYOUTS[family_of(name).training[name].layout]
    pixels = torch.from_numpy(frames).movedim(-1, 0)[None].float() / 127.5 - 1  # (1, 3, T, H, W)
    is_fp16 = vae.dtype == torch.float16  # in which encoding overflows, SDXL's always
    if is_fp16:
        vae.to(torch.float32)
    try:
        return encode(pipe, pixels.to(vae.device, vae.dtype)).float()
    finally:
        if is_fp16:
            vae.to(torch.float16)


def check_trainable(pipeline: str) -> None:
    """Raise ModelError for pipelines of a class that cannot be trained."""
    if pipeline not in family_of(pipeline).training:
        trainable = [name for family in FAMILIES for name in family.training]
        raise ModelError(
            f"{pipeline} cannot be trained: it is not known how its denoiser gets a video",
            f"the pipelines that can are {', '.join(trainable)}",
        )


def _normalised(pipe: Any, pixels: Tensor) -> Tensor:
    config, latents = pipe.vae.config, _mean(pipe.vae.encode(pixels))
    return (latents - _by_channel(config.latents_mean, latents)) / _by_channel(config.latents_std, latents)


def _frames_first(pipe: Any, pixels: Tensor) -> Tensor:
    """Frames before channels. Where tokens take pairs of latent frames, the first stands there twice."""
    latents = _scaled(pipe, pixels).transpose(1, 2)
    missing = -latents.shape[1] % (pipe.transformer.config.patch_size_t or 1)
    return torch.cat([latents[:, :1]] * missing + [latents], dim=1)


def _normalised_in_tokens(pipe: Any, pixels: Tensor) -> Tensor:
    vae, latents = pipe.vae, _mean(pipe.vae.encode(pixels))
    centred = latents - _by_channel(vae.latents_mean, latents)
    return pack_latents(
        centred * vae.config.scaling_factor / _by_channel(vae.latents_std, latents),
        pipe.transformer_spatial_patch_size,
    )


def _scaled(pipe: Any, pixels: Tensor) -> Tensor:
    factor: float = pipe.vae.config.scaling_factor
    return _mean(pipe.vae.encode(pixels)) * factor


def _image(pipe: Any, pixels: Tensor) -> Tensor:
    return _scaled(pipe, pixels[:, :, 0])


def _image_normalised(pipe: Any, pixels: Tensor) -> Tensor:
    """Derived models may have a mean and a deviation, as the pipeline knows."""
    mean, std = (getattr(pipe.vae.config, name, None) for name in ("latents_mean", "latents_std"))
    latents = _image(pipe, pixels)
    if mean is None or std is None:
        return latents
    factor: float = pipe.vae.config.scaling_factor
    return (latents - _by_channel(mean, latents) * factor) / _by_channel(std, latents)


def _image_shifted(pipe: Any, pixels: Tensor) -> Tensor:
    config = pipe.vae.config
    shift: float = config.shift_factor
    factor: float = config.scaling_factor
    return (_mean(pipe.vae.encode(pixels[:, :, 0])) - shift) * factor


_LAYOUTS: dict[LatentLayout, Callable[[Any, Tensor], Tensor]] = {
    "scaled": _scaled,
    "normalised": _normalised,
    "normalised_in_tokens": _normalised_in_tokens,
    "frames_first": _frames_first,
    "in_tokens": lambda pipe, pixels: pack_latents(_scaled(pipe, pixels), pipe.transformer.config.patch_size),
    # (1, 3, T, H, W) -> (1, C, T, h, w), with an autoencoder of images. One by one, which bounds memory.
    "frame_by_frame": lambda pipe, pixels: torch.stack([_scaled(pipe, f) for f in pixels.unbind(2)], dim=2),
    "image": _image,
    "image_normalised": _image_normalised,
    "image_shifted": _image_shifted,
    "image_in_tokens": lambda pipe, pixels: pack_latents(_image_shifted(pipe, pixels)[:, :, None], 2),
}


def _mean(encoded: Any) -> Tensor:
    return encoded.latent_dist.mode() if hasattr(encoded, "latent_dist") else encoded.latent


def _by_channel(values: Any, latents: Tensor) -> Tensor:
    """Return one value for each channel, for latents (B, C, ...)."""
    shape = (1, -1, *[1] * (latents.dim() - 2))
    return torch.as_tensor(values).to(latents.device, latents.dtype).view(shape)
