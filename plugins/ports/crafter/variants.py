"""The models of VideoCrafter and DynamiCrafter that were released, and which of them a checkpoint is.

Networks of some models are alike; what their scale of latents is tells them apart, where a file holds it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from framefleet.pipeline.errors import ModelError
from framefleet.plugins.ports.conversion.checkpoint import Checkpoint
from framefleet.plugins.ports.crafter.pipeline_base import CrafterPipeline
from framefleet.plugins.ports.crafter.pipeline_dynamicrafter import DynamiCrafterPipeline
from framefleet.plugins.ports.crafter.pipeline_videocrafter import (
    VideoCrafterImageToVideoPipeline,
    VideoCrafterPipeline,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One released model.

    size: (height, width) in pixels. traits: what tells its denoiser from others, as values of its config.
    default_fps: of a call without one, from the authors' scripts; None where it is given none.
    scheduler: arguments of VideoCrafterDDIMScheduler.
    """

    name: str
    pipeline: type[CrafterPipeline]
    size: tuple[int, int]
    traits: Mapping[str, Any]
    default_fps: int | None
    scheduler: Mapping[str, Any] = field(default_factory=dict)

    @property
    def latent_scale(self) -> float:
        return float(self.scheduler.get("latent_scale", 1.0))


def _noise(latent_scale: float) -> dict[str, Any]:
    return {"latent_scale": latent_scale}


def _velocity(latent_scale: float) -> dict[str, Any]:
    return {
        "prediction_type": "v_prediction",
        "timestep_spacing": "trailing",
        "rescale_betas_zero_snr": True,
        "latent_scale": latent_scale,
        "dynamic_rescale": True,
    }


_Row = tuple[str, type[CrafterPipeline], tuple[int, int], dict[str, Any], int | None, dict[str, Any]]
# Channels of the input; whether it has fps, temporal convolutions, positions, image attention, gate.
_USUAL = {"channels": 4, "fps": True, "convs": True, "positions": False, "image": False, "gate": False}
_POSITIONS = {"convs": False, "positions": True}
_CONCAT = {"channels": 8, "image": True}
_FROM_TEXT, _FROM_IMAGE = VideoCrafterPipeline, VideoCrafterImageToVideoPipeline

# name, pipeline, size, traits that are not the usual ones, default_fps, scheduler
_RELEASED: tuple[_Row, ...] = (
    ("videocrafter2-t2v-512", _FROM_TEXT, (320, 512), {}, 28, _noise(0.7)),
    ("videocrafter1-t2v-1024", _FROM_TEXT, (576, 1024), _POSITIONS, 28, _noise(0.3)),
    ("videocrafter1-t2v-512", _FROM_TEXT, (320, 512), {**_POSITIONS, "fps": False}, None, {}),
    ("videocrafter1-i2v-512", _FROM_IMAGE, (320, 512), {"image": True}, 8, _noise(0.7)),
    ("dynamicrafter-256", DynamiCrafterPipeline, (256, 256), {**_CONCAT, "gate": True}, 3, {}),
    ("dynamicrafter-512", DynamiCrafterPipeline, (320, 512), _CONCAT, 24, _velocity(0.7)),
    ("dynamicrafter-512-interp", DynamiCrafterPipeline, (320, 512), _CONCAT, 5, _velocity(0.7)),
    ("dynamicrafter-1024", DynamiCrafterPipeline, (576, 1024), _CONCAT, 10, _velocity(0.3)),
)
VARIANTS = tuple(
    Variant(
        name=name, pipeline=made, size=size, traits={**_USUAL, **traits}, default_fps=fps, scheduler=scheduler
    )
    for name, made, size, traits, fps, scheduler in _RELEASED
)


def traits_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the traits of a denoiser's config."""
    return {
        "channels": config["in_channels"],
        "fps": config["default_fps"] is not None,
        "convs": config["use_temporal_conv"],
        "positions": config["max_relative_position"] is not None,
        "image": config["image_cross_attention"],
        "gate": config["learnable_image_scale"],
    }


SCALES = "scale_arr"  # by timestep: a ramp from 1, then a constant
_NUM_TIMESTEPS, _RAMP = 1000, 400  # of all released models
_ROUNDING = 1e-3  # of a scale in bf16


def chosen_variant(unet: Mapping[str, Any], checkpoint: Checkpoint, asked: str | None) -> Variant:
    """Return the variant whose denoiser is like this one. Its scheduler scales latents as the file says.

    asked: as the user named it. Raises ModelError for none, for several, and for scales that are no ramp.
    """
    place = str(checkpoint.path)
    alike = [variant for variant in VARIANTS if variant.traits == traits_of(unet)]
    if SCALES not in checkpoint.shapes:
        return _one_of(alike, asked, place)
    scale, steps = _ramp(checkpoint.read(SCALES), place)
    scaled = [variant for variant in alike if abs(variant.latent_scale - scale) < _ROUNDING]
    if scaled and steps == _RAMP:
        return _one_of(scaled, asked, place)
    variant = _one_of(alike, asked, place)
    own = {
        "latent_scale": scale,
        "scale_steps": steps,
        "dynamic_rescale": issubclass(variant.pipeline, DynamiCrafterPipeline),
    }
    return replace(variant, scheduler={**variant.scheduler, **own})


def _one_of(fitting: list[Variant], asked: str | None, place: str) -> Variant:
    names = ", ".join(variant.name for variant in fitting)
    if not fitting:
        raise ModelError(
            f"{place} is like VideoCrafter, but of none of its models that are known",
            f"known are {', '.join(variant.name for variant in VARIANTS)}",
        )
    if asked is None and len(fitting) > 1:
        raise ModelError(f"{place} may be {names}: their networks are alike", "say which with --variant")
    chosen = [variant for variant in fitting if asked in (None, variant.name)]
    if not chosen:
        raise ModelError(f"{place} is not {asked}", f"by its tensors it is {names}")
    return chosen[0]


def _ramp(values: Tensor, place: str) -> tuple[float, int]:
    """Return where the scales end, and in how many steps. Raises ModelError for those of another form."""
    if values.dim() == 1 and len(values) >= _NUM_TIMESTEPS and values.is_floating_point():
        precision = max(torch.finfo(values.dtype).eps, 1e-6)
        scales = values.double()
        end = round(float(scales[-1]), 7)
        steps = int((scales[-1] != scales).sum()) + 1
        for length in (_RAMP, steps) if end > 0 else ():  # rounded, a ramp may reach its end early
            expected = torch.full_like(scales, end)
            expected[:length] = torch.linspace(1, end, length, dtype=torch.float64)
            if bool(((scales - expected).abs() <= precision).all()):
                return end, length
    raise ModelError(
        f"{place}: {SCALES}, of shape {tuple(values.shape)}, is not a ramp from 1 to a constant for "
        f"{_NUM_TIMESTEPS} timesteps",
        "take it out of the file, and say `--set scheduler.latent_scale=...` where it is not the released "
        "model's",
    )
