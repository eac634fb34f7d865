"""The noise scheduler of VideoCrafter and DynamiCrafter: DDIM (arXiv 2010.02502) with a scale of latents."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from diffusers import ConfigMixin, SchedulerMixin
from diffusers.configuration_utils import register_to_config
from diffusers.schedulers.scheduling_ddim import DDIMSchedulerOutput
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

_Floats = npt.NDArray[np.float64]


class VideoCrafterDDIMScheduler(SchedulerMixin, ConfigMixin):
    """DDIM whose clean latents shrink from 1 to `latent_scale` over the first `scale_steps` of the timesteps.

    The betas are diffusers' "scaled_linear" in double precision. latent_scale: None for no scaling.
    dynamic_rescale: as DynamiCrafter scales: the last step stays at the scale of its own timestep instead of
    going to 1, and `pred_original_sample` has the scale of the next timestep instead of 1.
    timestep_spacing: "uniform" starts at 1 and ends where the step size leads, so that the number of steps is
    exact only where it divides num_train_timesteps (30 gives 31); "trailing" is exact.
    rescale_betas_zero_snr: arXiv 2305.08891, algorithm 1; takes v_prediction.
    """

    order = 1
    init_noise_sigma = 1.0

    @register_to_config
    def __init__(
        self,
        num_train_timesteps: int = 1000,
        beta_start: float = 0.00085,
        beta_end: float = 0.012,
        prediction_type: Literal["epsilon", "v_prediction"] = "epsilon",
        timestep_spacing: Literal["uniform", "trailing"] = "uniform",
        rescale_betas_zero_snr: bool = False,
        latent_scale: float | None = None,
        scale_steps: int = 400,
        dynamic_rescale: bool = False,
    ) -> None:
        betas = np.linspace(beta_start**0.5, beta_end**0.5, num_train_timesteps, dtype=np.float64) ** 2
        if rescale_betas_zero_snr:
            roots = np.sqrt(np.cumprod(1 - betas))
            first, last = roots[0].copy(), roots[-1].copy()
            products = ((roots - last) * first / (first - last)) ** 2
            alphas = products / np.concatenate([[1.0], products[:-1]])
            rescaled: _Floats = 1 - alphas
            betas = rescaled
        self.alphas_cumprod = torch.from_numpy(np.cumprod(1 - betas).astype(np.float32))
        rising = np.linspace(1, latent_scale or 1, scale_steps)
        constant = np.full(max(0, num_train_timesteps - scale_steps), latent_scale or 1)
        self.latent_scales = torch.from_numpy(np.concatenate([rising, constant]).astype(np.float32))
        self.timesteps = torch.arange(num_train_timesteps).flip(0)

    def set_timesteps(self, num_inference_steps: int, device: str | torch.device | None = None) -> None:
        """Choose the timesteps. Raises ValueError for fewer steps than 1 and more than there are."""
        total = self.config.num_train_timesteps
        if not 1 <= num_inference_steps <= total:
            raise ValueError(f"num_inference_steps is {num_inference_steps}: use 1 to {total}")
        if self.config.timestep_spacing == "trailing":
            # A range of floats may end one step late, below 0, as with 61 steps.
            steps = np.round(np.arange(total, 0, -total / num_inference_steps))[:num_inference_steps] - 1
        else:
            # One of 1000 would be past the end; the originals fail there, as with 3 steps.
            steps = np.arange(1, total, total // num_inference_steps)[::-1]
        self.timesteps = torch.from_numpy(steps.astype(np.int64)).to(device)

    def scale_model_input(self, sample: Tensor, timestep: Tensor | int | None = None) -> Tensor:
        return sample

    def step(
        self,
        model_output: Tensor,
        timestep: Tensor | int,
        sample: Tensor,
        eta: float = 0.0,
        generator: torch.Generator | list[torch.Generator] | None = None,
        variance_noise: Tensor | None = None,
        return_dict: bool = True,
    ) -> DDIMSchedulerOutput | tuple[Tensor, Tensor]:
        """Take `sample` one step on. eta: share of the noise that is drawn anew, 0 to 1."""
        alpha, next_alpha, scale, next_scale = self._at(int(timestep))
        if self.config.prediction_type == "v_prediction":
            clean = alpha**0.5 * sample - (1 - alpha) ** 0.5 * model_output
            noise = alpha**0.5 * model_output + (1 - alpha) ** 0.5 * sample
        else:
            clean, noise = (sample - (1 - alpha) ** 0.5 * model_output) / alpha**0.5, model_output
        clean = clean / scale
        variance = eta**2 * (1 - next_alpha) / (1 - alpha) * (1 - alpha / next_alpha)
        # Rounding may leave a negative rest at zero SNR, whose root would be NaN.
        deterministic = max(0.0, 1 - next_alpha - variance) ** 0.5
        following = next_alpha**0.5 * next_scale * clean + deterministic * noise
        if eta > 0:
            if variance_noise is None:
                variance_noise = randn_tensor(
                    sample.shape, generator=generator, device=sample.device, dtype=sample.dtype
                )
            following = following + variance**0.5 * variance_noise
        if self.config.dynamic_rescale:
            clean = clean * next_scale
        if not return_dict:
            return following, clean
        return DDIMSchedulerOutput(prev_sample=following, pred_original_sample=clean)

    def _at(self, timestep: int) -> tuple[float, float, float, float]:
        """Return alpha_cumprod here and at the next timestep, and the scales of clean latents at both."""
        steps = self.timesteps.tolist()
        later = steps[steps.index(timestep) + 1 :]
        scale = float(self.latent_scales[timestep])
        end = scale if self.config.dynamic_rescale else float(self.latent_scales[0])
        next_scale = float(self.latent_scales[later[0]]) if later else end
        next_alpha = float(self.alphas_cumprod[later[0] if later else 0])
        return float(self.alphas_cumprod[timestep]), next_alpha, scale, next_scale

    def __len__(self) -> int:
        return int(self.config.num_train_timesteps)
